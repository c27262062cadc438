"""The peaks of all devices at once are those found by walking through each device's actions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.memory.activations import Passes, levels
from simulator.memory.peaks import peak_levels
from simulator.partition.plan import plan_run
from simulator.preparation.prepare import schedule_of
from simulator.preparation.prepared import with_schedule
from simulator.spec.run import RunSpec
from simulator.spec.sharding import FullySharded

KEPT_WHOLE = FullySharded(reshard_after_forward=False, gradient_sync="step", buffers="copied")


@pytest.mark.parametrize(
    ("schedule", "vp", "zero", "fsdp"),
    [
        ("1f1b", 1, 1, FullySharded()),
        ("interleaved-1f1b", 2, 2, FullySharded()),
        ("interleaved-1f1b", 2, 3, KEPT_WHOLE),
        ("zb-h1", 1, 1, FullySharded()),
        ("zb-v", 2, 3, KEPT_WHOLE),
        ("dualpipe", 1, 1, FullySharded()),
    ],
)
def test_peaks_are_those_of_a_walk(
    make_run: Callable[..., RunSpec], schedule: str, vp: int, zero: int, fsdp: FullySharded
) -> None:
    run = make_run(pp=4, vp=vp, schedule=schedule, zero=zero, fsdp=fsdp)
    prepared = with_schedule(run, schedule_of(run))
    passes, orders = Passes(prepared.plan), prepared.orders()
    assert prepared.plan.data.frees_whole_gradients == (fsdp is KEPT_WHOLE)
    for order, found in zip(orders, peak_levels(passes, orders), strict=True):
        assert found is not None
        course = list(levels(passes, order))
        walked = max(course, key=lambda level: level.most + level.gradients)
        assert found.most + found.gradients == pytest.approx(walked.most + walked.gradients, rel=1e-12)
        assert found in [
            level._replace(most=found.most, alive=found.alive, gradients=found.gradients) for level in course
        ]


def test_a_device_that_runs_nothing_has_no_peak(make_run: Callable[..., RunSpec]) -> None:
    passes = Passes(plan_run(make_run(pp=1)))
    assert peak_levels(passes, [[]]) == [None]
