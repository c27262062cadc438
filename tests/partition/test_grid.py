"""Tensor parallelism on grids: traffic as in the papers, every FLOP kept, folding exact, the rest refused."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.operators import Collective
from simulator.graph.options import GraphOptions
from simulator.graph.transformer import dense_layer
from simulator.partition.grid import Grid, share_on_grid
from simulator.partition.plan import plan_run
from simulator.partition.recompute import backward_segment, forward_segment
from simulator.partition.segment import Segment
from simulator.partition.tensor import TensorParallel
from simulator.simulate import simulate
from simulator.spec.errors import SpecError
from simulator.spec.load import load_model, load_run

GPT = load_model("megatron-22b")
GRIDS = [("2d", 2, 1), ("2d", 4, 1), ("2.5d", 2, 2), ("2.5d", 2, 4), ("3d", 2, 2), ("3d", 4, 4)]
MESSAGES = ("broadcast", "reduce", "all_gather", "reduce_scatter")


def passes(grid: Grid, batch: int, seq: int, *, full: bool = False) -> tuple[Segment, Segment]:
    layer = dense_layer(GPT, GraphOptions(batch=batch, seq=seq, dtype="bf16", vocab_size=GPT.vocab_size))
    nodes = tuple(share_on_grid(node, grid) for node in layer.nodes)
    tp = TensorParallel(size=grid.ranks, sequence=False, grid=grid)
    return forward_segment(nodes, tp), backward_segment(nodes, tp, full=full, modules=frozenset())


def elements(segment: Segment) -> Counter[str]:
    """Of all messages by kind, the small ones of norms apart."""
    total: Counter[str] = Counter()
    for step in segment.steps:
        if isinstance(step.op, Collective) and "norm" not in step.op.name:
            total[step.op.kind] += int(step.op.size_bytes) // 2
    return total


@settings(max_examples=20, deadline=None)
@given(q=st.sampled_from([2, 4, 8]), batch=st.sampled_from([8, 16]), seq=st.sampled_from([512, 2048]))
def test_summa_moves_what_optimus_counts(q: int, batch: int, seq: int) -> None:
    """Xu 2021 (arXiv 2104.05343), table 1: (7bsh + 12h²)/√p forward, with recompute three times as much
    backward; their factor log(p)/2 is the depth of a tree of broadcasts.
    """
    h = GPT.hidden_size
    forward, backward = passes(Grid(mode="2d", side=q), batch, seq, full=True)
    once = (7 * batch * seq * h + 12 * h * h) // q
    assert elements(forward) == {"broadcast": once}
    moved = elements(backward)
    assert moved["broadcast"] + moved["reduce"] == 3 * once


@settings(max_examples=20, deadline=None)
@given(q=st.sampled_from([2, 4]), d=st.sampled_from([2, 4]), seq=st.sampled_from([512, 2048]))
def test_depth_divides_activations_and_sums_weight_gradients(q: int, d: int, seq: int) -> None:
    """Wang 2021 (arXiv 2105.14500): each of d squares does its own tokens with all weights."""
    h, batch = GPT.hidden_size, 16
    forward, backward = passes(Grid(mode="2.5d", side=q, depth=d), batch, seq)
    once = 7 * batch * seq * h // (d * q) + 12 * h * h // q
    assert elements(forward) == {"broadcast": once}
    moved = elements(backward)
    assert moved["broadcast"] + moved["reduce"] == 2 * once
    assert moved["all_reduce"] == 12 * h * h // q**2


@settings(max_examples=20, deadline=None)
@given(side=st.sampled_from([2, 4]), batch=st.sampled_from([16, 32]), seq=st.sampled_from([512, 2048]))
def test_a_cube_gathers_operands_and_scatters_results(side: int, batch: int, seq: int) -> None:
    """Bian 2021 (arXiv 2105.14450), algorithms 1 to 3: each matrix of a product crosses one axis in 1/l²."""
    h, tokens = GPT.hidden_size, batch * seq
    inputs, weights, outputs = 7 * tokens * h, 12 * h * h, 9 * tokens * h
    forward, backward = passes(Grid(mode="3d", side=side, depth=side), batch, seq)
    square = side**2
    assert elements(forward) == {
        "all_gather": (inputs + weights) // square,
        "reduce_scatter": outputs // square,
    }
    assert elements(backward) == {
        "all_gather": (2 * outputs + weights + inputs) // square,
        "reduce_scatter": (weights + inputs) // square,
    }


@pytest.mark.parametrize(("mode", "side", "depth"), GRIDS)
@pytest.mark.parametrize("full", [False, True])
def test_flops_of_all_ranks_are_those_of_the_whole_layer(
    mode: Literal["2d", "2.5d", "3d"], side: int, depth: int, full: bool
) -> None:
    layer = dense_layer(GPT, GraphOptions(batch=16, seq=512, dtype="bf16", vocab_size=GPT.vocab_size))
    grid = Grid(mode=mode, side=side, depth=depth)
    forward, backward = passes(grid, 16, 512, full=full)
    assert grid.ranks * forward.flops == layer.forward_flops
    assert grid.ranks * backward.flops == layer.backward_flops + full * layer.forward_flops


def on_grid(tp: int, mode: str, *more: str) -> list[str]:
    layout = f"parallelism={{tp: {tp}, tp_mode: {mode}, tp_depth: {2 if mode == '2.5d' else 0}, zero: 1}}"
    batch = "training={seq_length: 2048, micro_batch_size: 8, global_batch_size: 8, precision: fp16}"
    return [layout, batch, f"gpus={tp}", "model.num_hidden_layers=2", *more]


RUN = "megatron-22b-8-a100-sequence-parallel"


@pytest.mark.parametrize(("tp", "mode"), [(4, "2d"), (8, "2.5d"), (8, "3d")])
def test_one_rank_stands_for_all(tp: int, mode: str) -> None:
    folded = simulate(load_run(RUN, on_grid(tp, mode)))
    every = simulate(load_run(RUN, on_grid(tp, mode, "simulation.ranks=all", "simulation.detail=operator")))
    assert folded.step_time_s == pytest.approx(every.step_time_s, rel=1e-9)


@pytest.mark.parametrize(("tp", "mode", "copies"), [(4, "2d", 1), (8, "2.5d", 2), (8, "3d", 1)])
def test_weights_lie_on_the_ranks_once_or_once_per_depth(tp: int, mode: str, copies: int) -> None:
    (cut,) = plan_run(load_run(RUN, on_grid(tp, mode))).chunks
    (whole,) = plan_run(load_run(RUN, on_grid(1, "1d"))).chunks
    matrices = [sum(x.parameters - x.replicated_parameters for x in chunk.layers) for chunk in (cut, whole)]
    assert tp * matrices[0] == pytest.approx(copies * matrices[1], rel=1e-3)  # words that pad the vocabulary


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["parallelism={tp: 8, tp_mode: 2d}"], "parallelism.tp"),
        (["parallelism={tp: 8, tp_mode: 2.5d}"], "parallelism.tp_depth"),
        (["parallelism={tp: 8, tp_depth: 2}"], "parallelism.tp_depth"),
        (["parallelism={tp: 4, tp_mode: 2d, cp: 2}"], "parallelism.cp"),
        (["parallelism={tp: 4, tp_mode: 2d}", "training.micro_batch_size=1"], "training.micro_batch_size"),
        (["parallelism={tp: 4, tp_mode: 2d}", "model=mixtral-8x7b"], "parallelism.tp_mode"),
        (["parallelism={tp: 4, tp_mode: 2d, sequence_parallel: true}"], "parallelism.sequence_parallel"),
        (["parallelism={tp: 4, tp_mode: 2d, pp: 2, schedule: zb-h1}"], "parallelism.schedule"),
    ],
)
def test_what_no_grid_can_do_is_refused_by_name(settings: list[str], key: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(RUN, settings)
    assert key in {problem.key_path for problem in caught.value.problems}
