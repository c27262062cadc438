"""Settles what a run leaves open: its stage split and its schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.engine.block import Blocks
from simulator.preparation.automatic import choose_schedule, measured_schedule
from simulator.preparation.balance import balance
from simulator.preparation.prepared import Prepared, with_schedule
from simulator.preparation.user_schedule import user_schedule
from simulator.schedule.definition import Schedule
from simulator.schedule.interleaved_1f1b import grouped
from simulator.schedule.registry import SCHEDULES
from simulator.spec.run import AUTOMATIC, RunSpec
from simulator.spec.stage_split import BALANCED

BlocksOf = Callable[[RunSpec, int], Blocks]
"""Timed operators and blocks of a run whose pipelines each hold so many copies of the model."""


def prepare(run: RunSpec, blocks_of: BlocksOf) -> Prepared:
    """A run ready to be replayed.

    Raises ValueError where its split is impossible.
    """
    if run.schedule == AUTOMATIC:
        return _with_automatic_schedule(run, blocks_of(run, 1))
    schedule = schedule_of(run)
    if run.parallelism.stage_split == BALANCED:
        return balance(run, schedule, blocks_of(run, schedule.directions))
    return with_schedule(run, schedule)


def _with_automatic_schedule(run: RunSpec, blocks: Blocks) -> Prepared:
    """Where both are open, layers are balanced for the schedule that times are measured under."""
    if run.parallelism.stage_split != BALANCED:
        return choose_schedule(run, blocks)
    split = balance(run, measured_schedule(run), blocks)
    chosen = choose_schedule(split.run, blocks)
    return replace(chosen, choices=(*split.choices, *chosen.choices))


def schedule_of(run: RunSpec) -> Schedule:
    """The schedule that a run names, or that the file it names holds."""
    if run.parallelism.microbatch_group_size:
        return grouped(run.parallelism.microbatch_group_size)
    return SCHEDULES[run.schedule] if run.schedule in SCHEDULES else user_schedule(run)
