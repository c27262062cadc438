"""Folded equals operator by operator: narrow precision, chunked products, graphs, recompute, offload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.recompute import Recompute
from simulator.spec.run import FP8_RECIPES, RunSpec

RECOMPUTE = (
    Recompute(),
    Recompute(granularity="full", num_layers=2),
    Recompute(granularity="selective", modules=("layernorm", "mlp")),
)


@st.composite
def runs(draw: st.DrawFn) -> RunSpec:
    run = load_run("llama3-8b-8-h100")
    tp = draw(st.sampled_from([1, 2, 4]))
    pp, vp = draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]))
    precision = draw(st.sampled_from(["bf16", "fp8"]))
    return replace(
        run,
        gpus=2 * tp * pp,
        model=replace(run.model, num_hidden_layers=8),
        parallelism=replace(run.parallelism, tp=tp, pp=pp, vp=vp, dp=2),
        training=replace(
            run.training,
            global_batch_size=2 * pp * 2,
            precision=precision,
            fp8_recipe=draw(st.sampled_from(FP8_RECIPES)) if precision == "fp8" else "",
            fp8_param_gather=precision == "fp8" and draw(st.booleans()),
            num_layers_at_start_in_bf16=draw(st.integers(0, 1)) if precision == "fp8" else 0,
            recompute=draw(st.sampled_from(RECOMPUTE)),
            activation_offload_layers=draw(st.integers(0, 2)),
        ),
        runtime=replace(
            run.runtime,
            tp_overlap=tp > 1 and draw(st.booleans()),
            cuda_graphs=draw(st.sampled_from(["none", "layer", "full"])),
            overlap_grad_reduce=False,
            overlap_param_gather=False,
        ),
    )


@settings(max_examples=20, deadline=None)
@given(run=runs())
def test_blocks_give_the_step_time_of_every_operator(
    stages_apart: Callable[[RunSpec], RunSpec], run: RunSpec
) -> None:
    run = stages_apart(run)
    folded = simulate(run)
    whole = simulate(replace(run, simulation=replace(run.simulation, detail="operator")))
    assert folded.step_time_s == pytest.approx(whole.step_time_s, rel=1e-9)
    assert sum(folded.breakdown_s.values()) == pytest.approx(folded.step_time_s, rel=1e-9)
    for category, seconds in whole.breakdown_s.items():
        assert folded.breakdown_s.get(category, 0.0) == pytest.approx(seconds, abs=1e-9 * whole.step_time_s)


@settings(max_examples=10, deadline=None)
@given(run=runs())
def test_blocks_agree_within_half_a_percent_beside_data_parallel_traffic(run: RunSpec) -> None:
    overlapped = replace(
        run, runtime=replace(run.runtime, overlap_grad_reduce=True, overlap_param_gather=True)
    )
    folded = simulate(overlapped)
    whole = simulate(replace(overlapped, simulation=replace(run.simulation, detail="operator")))
    assert folded.step_time_s == pytest.approx(whole.step_time_s, rel=5e-3)
