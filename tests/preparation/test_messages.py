"""How messages between stages are sent, and in which groups microbatches go, in whole runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.simulate import simulate, simulate_memory
from simulator.spec.run import RunSpec

SmallRun = Callable[..., RunSpec]


@pytest.mark.parametrize("pp", [2, 3, 4, 7])
def test_messages_one_by_one_never_deadlock_and_take_longer(small_run: SmallRun, pp: int) -> None:
    batched, single = (
        simulate(small_run("1f1b", pp=pp, m=2 * pp, batch_p2p=batch, stage_split="even")).step_time_s
        for batch in (True, False)
    )
    assert single > batched


def test_the_more_messages_overlap_the_shorter_the_step(small_run: SmallRun) -> None:
    ways = ({"overlap_p2p_warmup_flush": True}, {}, {"overlap_p2p": False})
    steps = [simulate(small_run("interleaved-1f1b", vp=2, **way)).step_time_s for way in ways]
    assert steps[0] < steps[1] < steps[2]


def test_any_number_of_microbatches_is_interleaved(small_run: SmallRun) -> None:
    steps = [simulate(small_run("interleaved-1f1b", vp=2, m=m)).step_time_s for m in (8, 9, 10, 12)]
    assert steps == sorted(steps)


def test_larger_groups_cost_memory_and_no_time(small_run: SmallRun) -> None:
    default, grouped = (
        small_run("interleaved-1f1b", vp=2, m=16, microbatch_group_size=size) for size in (0, 8)
    )
    assert simulate(grouped).step_time_s == pytest.approx(simulate(default).step_time_s, rel=0.02)
    assert simulate_memory(grouped).peak_bytes > simulate_memory(default).peak_bytes
