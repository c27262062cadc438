"""Settles what a run leaves open: its stage split and its schedule."""

from __future__ import annotations

from collections.abc import Callable

from simulator.engine.block import Blocks
from simulator.preparation.balance import balance
from simulator.preparation.prepared import Prepared, with_schedule
from simulator.schedule.definition import Schedule
from simulator.schedule.registry import SCHEDULES
from simulator.spec.run import RunSpec
from simulator.spec.stage_split import BALANCED

BlocksOf = Callable[[RunSpec, int], Blocks]
"""Timed operators and blocks of a run whose pipelines each hold so many copies of the model."""


def prepare(run: RunSpec, blocks_of: BlocksOf) -> Prepared:
    """A run ready to be replayed.

    Raises ValueError where its split is impossible.
    """
    schedule = schedule_of(run)
    if run.parallelism.stage_split == BALANCED:
        return balance(run, schedule, blocks_of(run, schedule.directions))
    return with_schedule(run, schedule)


def schedule_of(run: RunSpec) -> Schedule:
    """The schedule that a run names."""
    return SCHEDULES[run.schedule]
