"""Steps that interlock: devices update their weights without waiting for all others.

Asynchronous schedules never flush: a device updates when its own gradients are there (PipeDream after every
microbatch, PipeDream-2BW after those of a step) and takes the next microbatch. Synchronous ones may validate
the optimizer's step afterwards instead of meeting before it (Qi 2024, section 4): a device goes on with what
the devices before it have found of the gradient's norm. Either way a step is the time from one update to the
next in the steady state, of whichever device takes longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import NamedTuple

from simulator.engine.attribution import BUBBLE, breakdown
from simulator.engine.replay import Replay
from simulator.engine.tasks import COMPUTE
from simulator.schedule.actions import Action, Kind, Order
from simulator.schedule.definition import Schedule

STEPS = 4  # of a schedule that flushes; the last one is measured
ROUND_TRIPS = 4  # of p microbatches, before an asynchronous rhythm is measured
LONGEST = 4  # a rhythm of more steps than that is measured over one step


class Updates(NamedTuple):
    """Several updates in a row.

    ``ends``: by device, the actions before which each update stands. ``counted`` updates follow ``settled``
    ones and are measured; a step is ``share`` of them.
    """

    orders: list[Order]
    ends: list[list[int]]
    settled: int
    counted: int
    share: float


def asynchronous(schedule: Schedule, p: int, m: int) -> Updates:
    """As many microbatches as it takes to fill the pipeline, for the rhythm to repeat, and to drain it.

    An update stands before the first backward of the next one, whose gradients take the place of its own.
    Raises ValueError where the schedule is not defined.
    """
    every = 1 if schedule.updates_every_microbatch else m
    counted = lcm(every, p) // every
    if counted * every > LONGEST * max(m, p):
        counted = 1
    settled = -(-ROUND_TRIPS * p // every)
    updates = settled + counted + -(-2 * p // every)
    orders = schedule.checked_order(p, updates * every, 1)
    ends = [_before_backwards(order, every) for order in orders]
    return Updates(orders, ends, settled, counted, m / (every * counted))


def _before_backwards(order: Order, every: int) -> list[int]:
    starts = [
        i for i, a in enumerate(order) if a.kind is Kind.B and a.microbatch and a.microbatch % every == 0
    ]
    return [*starts, len(order)]


def repeated(orders: Sequence[Order], m: int) -> Updates:
    """A step of m microbatches several times in a row."""
    rows = [[_shifted(action, step * m) for step in range(STEPS) for action in order] for order in orders]
    ends = [[len(order) * (step + 1) for step in range(STEPS)] for order in orders]
    return Updates(rows, ends, STEPS - 1, 1, 1.0)


def _shifted(action: Action, by: int) -> Action:
    partner = None if action.partner is None else _shifted(action.partner, by)
    return action._replace(microbatch=action.microbatch + by, partner=partner)


def rhythm(
    updates: Updates, events: Replay, tasks: Sequence[Sequence[int]]
) -> tuple[float, list[dict[str, float]]]:
    """Seconds of a step in the steady state, and where they go on each rank.

    ``tasks``: by rank, how many tasks its compute stream has up to each update.
    """
    spent = []
    for rank, counts in enumerate(tasks):
        begin, end = counts[updates.settled - 1], counts[updates.settled + updates.counted - 1]
        records = events.stream(rank, COMPUTE)
        window = breakdown(records[begin:end], records[end - 1].end, COMPUTE, since=records[begin - 1].end)
        spent.append({category: updates.share * seconds for category, seconds in window.items()})
    longest = max(sum(each.values()) for each in spent)
    for each in spent:
        each[BUBBLE] = each.get(BUBBLE, 0.0) + longest - sum(each.values())
    return longest, spent
