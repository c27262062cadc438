"""A layer is at least as long as issuing it takes, unless its kernels are captured in a graph."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.cost.estimate import Estimate
from simulator.engine.block import Blocks
from simulator.engine.costing import OperatorCosts
from simulator.engine.host import GRAPH_LAUNCH_S, SOFTWARE, HostCosts
from simulator.graph.operators import Copy, Gemm, GroupedGemm, KernelOp, MemoryBound
from simulator.partition.segment import Segment, SegmentBuilder
from simulator.simulate import simulate
from simulator.spec.load import load_run

KERNELS = 10
PRODUCT = Gemm(name="product", m=1, n=1, k=1)
CAST = MemoryBound(name="cast", kind="cast", read_bytes=1.0, write_bytes=1.0, kernels=2)


class Microseconds:
    """Every kernel takes one, but those named."""

    def __init__(self, **seconds: float) -> None:
        self._seconds = seconds

    def estimate(self, op: KernelOp | Copy) -> Estimate:
        return Estimate(self._seconds.get(op.name, 1e-6), "gemm", 0.0, 0.0)


def seconds(host: HostCosts, op: KernelOp) -> float:
    out = SegmentBuilder()
    for _ in range(KERNELS):
        out.compute(op)
    return Blocks(OperatorCosts(Microseconds(), Microseconds(), host)).block(out.build()).seconds  # type: ignore[arg-type]


def test_small_kernels_wait_for_the_host() -> None:
    host = HostCosts(kernel_s=4e-6, software=SOFTWARE["megatron"])
    stack = host.software
    launch_s = 4e-6 + stack.kernel_s
    assert seconds(host, PRODUCT) == pytest.approx(KERNELS * (launch_s + stack.operator_s + stack.product_s))
    assert seconds(host, CAST) == pytest.approx(KERNELS * (2 * launch_s + stack.operator_s))


def test_a_slower_processor_takes_longer_for_everything() -> None:
    host = HostCosts(kernel_s=4e-6, software=SOFTWARE["megatron"])
    assert seconds(replace(host, thread_speed=0.5), CAST) == pytest.approx(2 * seconds(host, CAST))


def test_experts_with_products_of_their_own_are_issued_one_by_one() -> None:
    stack = SOFTWARE["megatron"]
    host = HostCosts(kernel_s=4e-6, software=stack)
    together = GroupedGemm(name="experts", groups=16, rows=64, n=1, k=1)
    apart = replace(together, apart=True)
    extra = 15 * (4e-6 + stack.kernel_s) + 16 * stack.expert_s
    assert seconds(host, apart) - seconds(host, together) == pytest.approx(KERNELS * extra)


def test_after_a_synchronisation_kernels_wait_until_they_are_issued() -> None:
    """Ten kernels of 1 µs before it and ten after, issued in 4 µs each, the last of them 100 µs long."""
    host = HostCosts(kernel_s=4e-6)
    long = replace(PRODUCT, name="long")
    out = SegmentBuilder(captured=False)
    for _ in range(KERNELS):
        out.compute(PRODUCT)
    out.synchronise(Copy(name="count", kind="d2h", size_bytes=8.0))
    for _ in range(KERNELS - 1):
        out.compute(PRODUCT)
    out.compute(long)
    costs = OperatorCosts(Microseconds(long=100e-6), Microseconds(), host)  # type: ignore[arg-type]
    before, copy, after = KERNELS * 4e-6, 1e-6 + 4e-6, (KERNELS + 1) * 4e-6 + 100e-6
    assert Blocks(costs).block(out.build()).seconds == pytest.approx(before + copy + after)


def test_a_part_that_runs_by_itself_takes_the_host_more() -> None:
    stack = SOFTWARE["megatron"]
    out = SegmentBuilder()
    out.compute(PRODUCT)
    plain = out.build()
    opening = Segment(tuple(replace(step, opens_part=True) for step in plain.steps))
    costs = OperatorCosts(Microseconds(), Microseconds(), HostCosts(software=stack))  # type: ignore[arg-type]
    blocks = Blocks(costs)
    assert blocks.block(opening).seconds - blocks.block(plain).seconds == pytest.approx(stack.part_s)


def test_a_graph_is_one_launch_and_a_captured_step_none() -> None:
    assert seconds(HostCosts(kernel_s=4e-6, graphs="layer"), PRODUCT) == pytest.approx(GRAPH_LAUNCH_S)
    assert seconds(HostCosts(kernel_s=4e-6, graphs="full"), PRODUCT) == pytest.approx(KERNELS * 1e-6)


def test_work_of_unknown_shape_stays_outside_a_layers_graph() -> None:
    host = HostCosts(kernel_s=4e-6, graphs="layer")
    out = SegmentBuilder()
    for captured in (True, False, True):
        out.captured = captured
        for _ in range(KERNELS):
            out.compute(PRODUCT)
    costs = OperatorCosts(Microseconds(), Microseconds(), host)  # type: ignore[arg-type]
    assert Blocks(costs).block(out.build()).seconds == pytest.approx(GRAPH_LAUNCH_S + KERNELS * 4e-6)


def test_graphs_shorten_a_run_of_small_layers() -> None:
    run = load_run("llama3-8b-8-h100")
    small = replace(
        run,
        parallelism=replace(run.parallelism, tp=8, dp=1),
        training=replace(run.training, seq_length=512, global_batch_size=8),
    )
    times = [
        simulate(replace(small, runtime=replace(small.runtime, cuda_graphs=graphs))).step_time_s
        for graphs in ("none", "layer", "full")
    ]
    assert times[0] > times[1] >= times[2]
