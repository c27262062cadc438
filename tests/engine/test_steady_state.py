"""A folded steady state gives the step of the full replay."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.engine.steady import folds
from simulator.schedule.registry import SCHEDULES
from simulator.simulation import Simulation
from simulator.spec.load import load_run

seconds = st.floats(0.01, 10.0)
FOLDING = ["1f1b", "interleaved-1f1b", "zb-h1", "zb-h2", "interleaved-zb", "zb-v", "dualpipe", "dualpipev"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    p=st.integers(2, 4), extra=st.integers(0, 3), F=seconds, B=seconds, W=seconds, message=st.floats(0.0, 2.0)
)
@pytest.mark.parametrize("name", FOLDING)
def test_folded_equals_full(pipeline, name, p, extra, F, B, W, message):
    v = 2 if SCHEDULES[name].natural_v > 1 else 1
    m = 20 * p + (extra * p if v > 1 else extra)
    if SCHEDULES[name].check(p, m, v):
        return  # dualpipe's numbers are even
    folded, full = (
        pipeline(name, p, m, v, (F, B, W), message_s=message, fold_steady_state=fold)
        for fold in (True, False)
    )
    assert folded.seconds == pytest.approx(full.seconds, rel=1e-9)
    for short, whole in zip(folded.breakdowns, full.breakdowns, strict=True):
        for category, spent in whole.items():
            assert short.get(category, 0.0) == pytest.approx(spent, abs=1e-9 * full.seconds)


@pytest.mark.parametrize("name", FOLDING)
def test_long_steps_are_replayed_short(pipeline, name):
    v = 2 if SCHEDULES[name].natural_v > 1 else 1
    step = pipeline(name, 4, 400, v, (1.0, 1.0, 1.0))
    assert sum(map(len, step.orders)) < sum(map(len, SCHEDULES[name].order(4, 400, v))) / 2


def test_a_rhythm_of_several_windows_is_found(pipeline):
    """With these times ZB-V repeats every third window, not every one."""
    step = [
        pipeline("zb-v", 3, 60, 2, (0.31029728290165154, 1.25, 0.5), message_s=1.3125, fold_steady_state=fold)
        for fold in (True, False)
    ]
    assert step[0].seconds == pytest.approx(step[1].seconds, rel=1e-9)


def test_schedules_that_run_all_forwards_first_do_not_fold():
    assert not list(folds(SCHEDULES["gpipe"], 4, 400, 1, blocking=False, quiet=True))


@pytest.mark.parametrize("zero", [0, 1, 2])
@pytest.mark.parametrize("overlaps", ["true", "false"])
def test_what_is_left_for_the_end_of_a_long_step_is_not_forgotten(zero, overlaps):
    """ZeRO 0 and 1 without overlap reduce all gradients there; ZeRO-2 reduces in every microbatch."""
    settings = [f"parallelism.zero={zero}", f"runtime.overlap_grad_reduce={overlaps}"]
    layout = ["parallelism.pp=2", "parallelism.dp=2", "training.global_batch_size=48"]
    run = load_run("llama3-8b-8-h100", [*layout, *settings])
    folded, full = Simulation(run).step, Simulation(run, whole=True).step
    assert folded.seconds == pytest.approx(full.seconds, rel=1e-9)


def test_a_window_may_last_to_the_end_of_a_step():
    """No backward follows the last forwards here, and ZeRO-2 is no traffic of edges alone."""
    layout = ["parallelism.tp=1", "parallelism.pp=4", "parallelism.dp=2", "parallelism.zero=2"]
    settings = ["parallelism.schedule=forward-only", "training.global_batch_size=96"]
    run = load_run("llama3-8b-8-h100", [*layout, *settings])
    folded, full = Simulation(run).step, Simulation(run, whole=True).step
    assert folded.seconds == pytest.approx(full.seconds, rel=1e-9)


@pytest.mark.parametrize("vp", [1, 2])
def test_long_published_runs_fold_to_their_full_replay(vp):
    settings = [
        f"parallelism.vp={vp}",
        "training.global_batch_size=1536",
        "parallelism.pp=32",
        "parallelism.dp=6",
    ]
    schedule = "parallelism.schedule=" + ("1f1b" if vp == 1 else "interleaved-1f1b")
    run = load_run("megatron-1t-3072-a100-sc21", [*settings, "gpus=1536", schedule])
    folded, full = Simulation(run).step, Simulation(run, fold=False).step
    assert sum(map(len, folded.orders)) < sum(map(len, full.orders)) / 1.5
    assert folded.seconds == pytest.approx(full.seconds, rel=1e-9)
    for short, whole in zip(folded.breakdowns, full.breakdowns, strict=True):
        for category, spent in whole.items():
            assert short.get(category, 0.0) == pytest.approx(spent, abs=1e-9 * full.seconds)
