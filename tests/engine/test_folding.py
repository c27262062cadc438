"""Folding loses nothing: blocks against every operator, rank classes against every rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.shared import Shared
from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec


@st.composite
def small_worlds(draw: st.DrawFn) -> RunSpec:
    """Llama-3-8B-like runs of up to 64 ranks, with and without overlap of everything."""
    run = load_run("llama3-8b-8-h100")
    tp = draw(st.sampled_from([1, 2, 4]))
    pp, vp = draw(st.sampled_from([(1, 1), (2, 1), (4, 1), (2, 2), (2, 4), (4, 2)]))
    dp = draw(st.sampled_from([d for d in (1, 2, 3, 8) if d * tp * pp <= 64]))
    microbatches = draw(st.integers(1, 2)) * pp + (draw(st.integers(0, 1)) if vp == 1 else 0)
    flags = draw(st.tuples(*[st.booleans()] * 4))
    return replace(
        run,
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=16),
        parallelism=replace(
            run.parallelism, tp=tp, pp=pp, vp=vp, dp=dp, zero=draw(st.sampled_from([0, 1])), schedule=""
        ),
        training=replace(run.training, global_batch_size=microbatches * dp, micro_batch_size=1),
        runtime=replace(
            run.runtime,
            overlap_grad_reduce=flags[0],
            overlap_param_gather=flags[1],
            overlap_p2p=flags[2],
            tp_dgrad_overlap=flags[3],
            ddp_bucket_elements=1e8,
        ),
    )


@settings(max_examples=12, deadline=None)
@given(run=small_worlds())
def test_classes_and_blocks_give_the_step_time_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], run: RunSpec
) -> None:
    loses_nothing_by_folding(run)


@settings(max_examples=25, deadline=None)
@given(run=small_worlds())
def test_the_breakdown_sums_to_the_step(run: RunSpec) -> None:
    result = simulate(run)
    assert sum(result.breakdown_s.values()) == pytest.approx(result.step_time_s, rel=1e-9)
    low, high = result.step_time_interval_s
    assert low <= result.step_time_s <= high


@settings(max_examples=15, deadline=None)
@given(run=small_worlds())
def test_equal_input_gives_equal_output(run: RunSpec) -> None:
    assert simulate(run).to_dict() == simulate(run).to_dict()


@pytest.mark.parametrize(
    "switch", ["overlap_grad_reduce", "overlap_param_gather", "overlap_p2p", "tp_dgrad_overlap"]
)
@settings(max_examples=8, deadline=None)
@given(run=small_worlds())
def test_more_overlap_is_never_slower(run: RunSpec, switch: str) -> None:
    off = simulate(replace(run, runtime=replace(run.runtime, **{switch: False})))
    on = simulate(replace(run, runtime=replace(run.runtime, **{switch: True})))
    assert on.step_time_s <= off.step_time_s * (1 + 1e-9)


@settings(max_examples=10, deadline=None)
@given(run=small_worlds())
def test_without_interference_blocks_are_exact(
    exactly_as_every_operator: Callable[[RunSpec], None],
    stages_apart: Callable[[RunSpec], RunSpec],
    run: RunSpec,
) -> None:
    apart = replace(run.runtime, overlap_grad_reduce=False, overlap_param_gather=False)
    exactly_as_every_operator(stages_apart(replace(run, runtime=apart)))


@settings(max_examples=10, deadline=None)
@given(run=small_worlds())
def test_what_simulations_share_changes_no_result(run: RunSpec) -> None:
    assert simulate(run, shared=Shared()).to_dict() == simulate(run).to_dict()
