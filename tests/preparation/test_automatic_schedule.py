"""``schedule: automatic`` in runs: it fits, and no schedule with a name that fits is faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.schedule.registry import SCHEDULES
from simulator.simulate import simulate, simulate_memory
from simulator.spec.run import RunSpec

SmallRun = Callable[..., RunSpec]


@pytest.mark.parametrize(("lean", "vp"), [("1f1b", 1), ("v-min", 2)])
@pytest.mark.parametrize("share", [1.0, 1.05, 1.2])
def test_no_schedule_that_fits_the_same_memory_is_faster(
    small_run: SmallRun, lean: str, vp: int, share: float
) -> None:
    """``share``: of what a lean schedule needs."""
    limit = share * simulate_memory(small_run(lean, vp=vp)).peak_bytes
    found = simulate(small_run("automatic", vp=vp, stage_memory=limit))
    assert found.memory["peak_bytes"] <= limit
    assert found.choices[0].startswith("schedule automatic: ")
    for name, schedule in SCHEDULES.items():
        named = small_run(name, vp=vp)
        comparable = schedule.synchronous and not schedule.forward_only and schedule.directions == 1
        if comparable and not schedule.check(4, 8, vp) and simulate_memory(named).peak_bytes <= limit:
            assert found.step_time_s <= simulate(named).step_time_s * (1 + 1e-12)


def test_more_memory_never_makes_a_longer_step(small_run: SmallRun) -> None:
    needed = simulate_memory(small_run("1f1b")).peak_bytes
    steps = [
        simulate(small_run("automatic", stage_memory=share * needed)).step_time_s for share in (1.0, 1.1, 1.5)
    ]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0]


def test_a_limit_that_nothing_keeps_to_is_refused_with_a_remedy(small_run: SmallRun) -> None:
    with pytest.raises(ValueError, match=r"none fits 4\.0 GiB .* raise parallelism\.stage_memory"):
        simulate(small_run("automatic", stage_memory=4 * 2.0**30))


def test_what_blocking_messages_would_stop_is_never_chosen(small_run: SmallRun) -> None:
    """Zero-bubble orders, the best where messages run beside compute, would wait for ever."""
    free, blocking = (simulate(small_run("automatic", overlap_p2p=overlap)) for overlap in (None, False))
    assert blocking.step_time_s == pytest.approx(simulate(small_run("1f1b")).step_time_s, rel=0.1)
    assert free.step_time_s < blocking.step_time_s
