"""Chunked products do the same work and move the same bytes; whoever runs them takes the quicker way."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost.estimate import Estimate, KernelModel
from simulator.engine.block import Blocks
from simulator.engine.contention import slowed
from simulator.engine.costing import NetworkModel, OperatorCosts
from simulator.graph.operators import Collective, Gemm, KernelOp, SendRecv
from simulator.graph.options import GraphOptions
from simulator.graph.transformer import dense_layer
from simulator.network.estimate import TransferEstimate
from simulator.network.flows import Load
from simulator.partition.recompute import backward_segment, forward_segment
from simulator.partition.segment import Segment, split_gradients
from simulator.partition.tensor import TensorParallel, shard
from simulator.simulate import simulate
from simulator.spec.load import load_model, load_run

MODEL = load_model("llama3-8b")
OPTIONS = GraphOptions(batch=1, seq=8192, dtype="bf16", vocab_size=MODEL.vocab_size)
TP = TensorParallel(size=4, sequence=True, overlap=True)


class Rates:
    """Kernels at a rate plus a start; messages by their bytes."""

    def __init__(self, start_s: float, flops: float = 1e15, bandwidth: float = 1e11) -> None:
        self.start_s, self.flops, self.bandwidth = start_s, flops, bandwidth

    def estimate(self, op: KernelOp) -> Estimate:
        return Estimate(self.start_s + op.flops / self.flops, "gemm", 0.0, 0.0)

    def collective(self, kind: str, size_bytes: float, axis: str) -> TransferEstimate:
        return TransferEstimate(size_bytes / self.bandwidth, "ring", "Simple", 0.0, 0.0)

    def send_recv(self, size_bytes: float, axis: str = "tp", stage: int = 0) -> TransferEstimate:
        return TransferEstimate(size_bytes / self.bandwidth, "p2p", "Simple", 0.0, 0.0)

    def collective_load(self, kind: str, size_bytes: float, axis: str) -> Load:
        return Load()

    def message_load(self, size_bytes: float, axis: str = "tp", stage: int = 0) -> Load:
        return Load()


def costs(rates: Rates, share: float = 0.0) -> OperatorCosts:
    return OperatorCosts(cast(KernelModel, rates), cast(NetworkModel, rates), communication_share=share)


def passes(tp: TensorParallel) -> tuple[Segment, Segment]:
    nodes = tuple(shard(node, tp) for node in dense_layer(MODEL, OPTIONS).nodes)
    return forward_segment(nodes, tp), backward_segment(nodes, tp, full=False, modules=frozenset())


def moved(segment: Segment) -> float:
    """Bytes a rank receives or sends, a whole gather counting its other ranks' parts only."""
    total = 0.0
    for step in segment.steps:
        if isinstance(step.op, Collective):
            total += step.op.size_bytes * (TP.size - 1) / TP.size
        elif isinstance(step.op, SendRecv):
            total += step.op.size_bytes
    return total


def test_every_product_with_its_own_collective_may_run_in_chunks() -> None:
    """QKV, FC1, projection and FC2 forward; input gradients of projection and FC2."""
    forward, backward = passes(TP)
    assert len(forward.ways) == 4
    assert len(backward.ways) == 2
    assert not any(segment.ways for segment in passes(replace(TP, overlap=False)))


def test_exposed_reductions_of_input_gradients_may_run_in_chunks_too() -> None:
    """Where nothing else hides them: QKV's and FC1's beside their own product."""
    _, backward = passes(replace(TP, overlap_dgrad=False))
    assert len(backward.ways) == 4
    chunked = backward.taking(backward.ways)
    assert chunked.flops == pytest.approx(backward.flops)
    assert moved(chunked) == pytest.approx(moved(backward))


def test_chunks_do_the_same_work_and_move_the_same_bytes() -> None:
    for segment in passes(TP):
        chunked = segment.taking(segment.ways)
        assert chunked.flops == pytest.approx(segment.flops)
        assert moved(chunked) == pytest.approx(moved(segment))
        assert all(max(step.waits, default=-1) < index for index, step in enumerate(chunked.steps))


def test_a_free_start_leaves_the_first_or_last_chunk_exposed() -> None:
    """Products longer than their transfers: only the last quarter of a reduce-scatter is left."""
    forward, _ = passes(TP)
    times = costs(Rates(0.0, flops=1e13))
    blocks = Blocks(times)
    chunked = blocks.quickest(forward)
    scatters = [s.op for s in forward.steps if isinstance(s.op, Collective) and s.op.kind == "reduce_scatter"]
    computed = sum(times.cost(s.op).seconds for s in forward.steps if isinstance(s.op, Gemm) or s.op.flops)
    exposed = sum(times.cost(op).seconds for op in scatters) / 4
    assert blocks.block(chunked).seconds == pytest.approx(computed + exposed)


def test_chunks_that_cost_more_than_they_hide_are_not_taken() -> None:
    forward, _ = passes(TP)
    slow_start = Rates(start_s=1.0)
    assert Blocks(costs(slow_start)).quickest(forward).steps == forward.steps


@settings(max_examples=25, deadline=None)
@given(
    start=st.floats(0.0, 1e-3),
    flops=st.floats(1e13, 1e16),
    bandwidth=st.floats(1e9, 1e12),
    part=st.integers(0, 1),
)
def test_a_choice_of_ways_is_never_slower(start: float, flops: float, bandwidth: float, part: int) -> None:
    rates = Rates(start, flops, bandwidth)
    segment = passes(TP)[part]
    blocks = Blocks(costs(rates, 16 / 132))
    assert blocks.block(segment).seconds <= blocks.block(segment.taking(())).seconds * (1 + 1e-12)


def test_zero_bubble_halves_keep_their_ways() -> None:
    _, backward = passes(TP)
    inputs, weights = split_gradients(backward)
    assert len(inputs.ways) == 2 and not weights.ways
    chunked = inputs.taking(inputs.ways)
    assert chunked.flops == pytest.approx(inputs.flops)
    rates = Rates(0.0, flops=1e13)
    assert Blocks(costs(rates)).block(inputs).seconds > 0.0


@given(product=st.floats(1e-6, 1.0), beside=st.floats(0.0, 1.0), share=st.floats(0.0, 0.5))
def test_a_product_beside_communication_loses_at_most_its_share(
    product: float, beside: float, share: float
) -> None:
    long = slowed(product, beside, share)
    assert product <= long <= product / (1.0 - share) * (1 + 1e-12)
    assert slowed(product, 0.0, share) == product
    assert slowed(product, beside, 0.0) == product


def test_overlap_shortens_a_run_and_never_lengthens_one() -> None:
    run = load_run("llama3-8b-8-h100")
    for tp in (2, 4, 8):
        layout = replace(run.parallelism, tp=tp, dp=8 // tp)
        plain = replace(run, parallelism=layout)
        overlapped = replace(plain, runtime=replace(plain.runtime, tp_overlap=True))
        assert simulate(overlapped).step_time_s < simulate(plain).step_time_s
