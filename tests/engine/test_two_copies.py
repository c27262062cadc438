"""DualPipe in whole runs: two devices hold each stage, and their gradients meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.preparation.prepare import prepare
from simulator.simulate import Shared, simulate, simulate_memory
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec

MOE = load_run("mixtral-8x7b-64-h100")


def run_of(schedule: str, *, pp: int, vp: int = 1, dp: int = 2, ep: int = 2, rounds: int = 2) -> RunSpec:
    """A small mixture of experts; ``rounds`` of pp microbatches."""
    p = replace(MOE.parallelism, tp=1, pp=pp, vp=vp, ep=ep, etp=1, dp=dp, schedule=schedule)
    return replace(
        MOE,
        gpus=pp * dp,
        model=replace(MOE.model, num_hidden_layers=8),
        parallelism=p,
        training=replace(MOE.training, micro_batch_size=1, global_batch_size=rounds * pp * dp),
        runtime=replace(MOE.runtime, ep_overlap=ep > 1, overlap_p2p=None),
    )


@settings(max_examples=5, deadline=None)
@given(
    pp=st.sampled_from([2, 4]),
    dp=st.sampled_from([2, 4]),
    ep=st.sampled_from([1, 2]),
    zero=st.sampled_from([0, 1]),
    rounds=st.integers(2, 3),
)
def test_classes_and_blocks_give_the_step_time_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], pp: int, dp: int, ep: int, zero: int, rounds: int
) -> None:
    run = run_of("dualpipe", pp=pp, dp=dp, ep=ep, rounds=rounds)
    loses_nothing_by_folding(replace(run, parallelism=replace(run.parallelism, zero=zero)))


def test_a_pipeline_and_its_half_do_the_same_work_in_the_same_time() -> None:
    """DualPipeV is DualPipe cut in half: p/2 devices, m/2 microbatches, as many GPUs (DualPipe's README)."""
    whole, half = run_of("dualpipe", pp=4), run_of("dualpipev", pp=2, vp=2, dp=4, rounds=2)
    assert whole.microbatches == 2 * half.microbatches
    assert simulate(whole).step_time_s == pytest.approx(simulate(half).step_time_s, rel=0.01)


def test_both_copies_reduce_together_and_share_the_optimizer() -> None:
    """Weights and gradients of two stages; optimizer states as if there was one copy."""
    dual = simulate_memory(run_of("dualpipe", pp=4)).stages[1]
    single = simulate_memory(run_of("1f1b", pp=4)).stages[1]
    assert dual.weights == pytest.approx(2 * single.weights, rel=1e-12)
    assert dual.gradients == pytest.approx(2 * single.gradients, rel=1e-12)
    assert dual.optimizer == pytest.approx(single.optimizer, rel=1e-12)
    data = prepare(run_of("dualpipe", pp=4), Shared().blocks).plan.data
    assert (data.copies("dp_cp"), data.copies("edp")) == (4, 2)


def test_a_pipeline_without_replicas_still_reduces_the_gradients_of_its_two_copies() -> None:
    exposed = {
        schedule: simulate(run_of(schedule, pp=2, dp=1, ep=1)).breakdown_s["exposed_dp"]
        for schedule in ("dualpipe", "zb-h1")
    }
    assert exposed["dualpipe"] > exposed["zb-h1"] == 0


def test_deepseek_v3_on_2048_h800_takes_about_as_long_as_published() -> None:
    """DualPipe over 16 devices, 2.664 M GPU hours for 14.8 T tokens: arXiv 2412.19437, table 1."""
    run = load_run("deepseek-v3-2048-h800")
    assert (run.schedule, run.parallelism.pp) == ("dualpipe", 16)
    assert run.published is not None
    assert simulate(run).step_time_s == pytest.approx(run.published.step_time_s, rel=0.15)


@pytest.mark.parametrize("schedule", ["zb-v", "dualpipev"])
def test_a_run_made_by_hand_with_chunks_that_its_schedule_has_not_is_refused_in_words(schedule: str) -> None:
    with pytest.raises(ValueError, match="two chunks per device, not 1"):
        simulate(run_of(schedule, pp=2, vp=1))
