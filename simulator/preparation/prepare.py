"""Settles what a run leaves open."""

from __future__ import annotations

from simulator.preparation.prepared import Prepared, with_schedule
from simulator.schedule.definition import Schedule
from simulator.schedule.registry import SCHEDULES
from simulator.spec.run import RunSpec


def prepare(run: RunSpec) -> Prepared:
    """A run ready to be replayed."""
    return with_schedule(run, schedule_of(run))


def schedule_of(run: RunSpec) -> Schedule:
    """The schedule that a run names."""
    return SCHEDULES[run.schedule]
