"""A periodic steady state is replayed once: a long step from a short one of the same schedule.

Many schedules repeat a window of actions in their middle, shifted by ``period`` microbatches. A step of more
microbatches is the same step with more windows. Once every stream of every device has run its last windows
each exactly ``seconds`` later than the one before, as many of them as a window depends on
(:mod:`simulator.engine.reach`), all later windows do too: what a window does depends on those windows and on
differences of time only. The long step then takes that much longer per window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache, cached

from simulator.engine.attribution import breakdown
from simulator.engine.course import Times
from simulator.engine.messages import Pipeline
from simulator.engine.quiet import Mark, QuietDevice
from simulator.engine.reach import Window, compared_windows
from simulator.engine.replay import Replay
from simulator.engine.tasks import COMPUTE, Record
from simulator.engine.wiring import DeviceWiring
from simulator.schedule.actions import Action, Kind, Order
from simulator.schedule.definition import Schedule

WORTH = 1.5  # a short step must be this many times shorter
TOLERANCE = 1e-12  # of the step: rounding of sums
MOST_ACTIONS = 1_000_000  # remembered, of 100 bytes each


class Fold(NamedTuple):
    """A short step that stands for a long one."""

    microbatches: int  # of the short one
    orders: list[Order]
    windows: list[Window]
    repeats: int  # windows the long step has and the short one has not
    compared: int  # windows in a row that must be equal but for a shift


class SteadyState(NamedTuple):
    """One window in its periodic state."""

    seconds: float
    breakdowns: list[dict[str, float]]  # per device, each summing to ``seconds``


Cuts = list[dict[int, dict[str, int]]]
"""Per device: action index → stream → tasks issued before it."""


def folds(schedule: Schedule, p: int, m: int, v: int, *, blocking: bool) -> Iterator[Fold]:
    """Short steps worth trying for a step of ``m`` microbatches, shortest first."""
    for period in dict.fromkeys((1, 2, p)):
        shortest = (p if period < p else 2 * p) + 3 * period  # mostly enough
        for least in (shortest, 4 * p + 4 * period):  # what stays out of step longer
            fold = _fold(schedule, p, m, v, period, least, blocking)
            if fold is not None:
                yield fold


def _actions(orders: Sequence[Order]) -> int:
    return sum(map(len, orders))


@cached(LRUCache(maxsize=MOST_ACTIONS, getsizeof=_actions))  # similar runs have it in common
def whole_order(schedule: Schedule, p: int, m: int, v: int) -> list[Order]:
    """All actions of a step. Raises ValueError where the schedule is not defined."""
    return schedule.checked_order(p, m, v)


@cached(LRUCache(maxsize=MOST_ACTIONS, getsizeof=lambda fold: 1 + (_actions(fold.orders) if fold else 0)))
def _fold(schedule: Schedule, p: int, m: int, v: int, period: int, least: int, blocking: bool) -> Fold | None:
    """The shortest step of at least so many microbatches that may stand for ``m``."""
    short = least + (m - least) % period
    if WORTH * short > m or schedule.check(p, short, v) or schedule.check(p, short + period, v):
        return None
    orders = whole_order(schedule, p, short, v)
    longer = whole_order(schedule, p, short + period, v)
    shift = period // schedule.directions  # each direction counts its own microbatches
    windows = [_window(a, b, shift) for a, b in zip(orders, longer, strict=True)]
    found = _before_the_edges([window for window in windows if window is not None], orders)
    if len(found) != p:
        return None
    stages = 1 + max(action.stage for order in orders for action in order)
    pipeline = Pipeline(schedule.placement(p, v), stages, schedule.directions)
    compared = compared_windows(pipeline, orders, found, blocking=blocking)
    if compared is None or any(window.stop <= compared * window.length for window in found):
        return None
    return Fold(short, orders, found, (m - short) // period, compared)


def _window(short: Order, longer: Order, shift: int) -> Window | None:
    """Where ``longer`` has one more window than ``short``, if that is all that sets them apart."""
    length = len(longer) - len(short)
    stop = next((i for i, (a, b) in enumerate(zip(short, longer, strict=False)) if a != b), len(short))
    if length <= 0 or stop < length:
        return None
    repeated = [_shifted(action, shift) for action in longer[stop - length : stop]] == longer[
        stop : stop + length
    ]
    same_end = [_shifted(action, shift) for action in short[stop:]] == longer[stop + length :]
    return Window(stop - length, stop) if repeated and same_end else None


def _before_the_edges(windows: list[Window], orders: list[Order]) -> list[Window]:
    """Windows moved back, all equally far, until none holds a stage's last gradient of the step.

    That action runs differently (its buckets are reduced), and moving all keeps devices in step.
    """
    back = 0
    for window, order in zip(windows, orders, strict=False):
        last = {a.stage: i for i, action in enumerate(order) for a in action.parts if a.kind is not Kind.F}
        back = max(back, -((min(last.values(), default=window.stop) - window.stop) // window.length))
    moved = [Window(w.start - back * w.length, w.stop - back * w.length) for w in windows]
    return [w for w in moved if w.start > 0]


def _shifted(action: Action, by: int) -> Action:
    partner = None if action.partner is None else _shifted(action.partner, by)
    return action._replace(microbatch=action.microbatch + by, partner=partner)


def cut_points(fold: Fold) -> list[list[int]]:
    """Per device, the action indices between which windows are compared."""
    return [[w.stop - k * w.length for k in range(fold.compared + 1)] for w in fold.windows]


def steady_state(events: Replay, fold: Fold, cuts: Cuts) -> SteadyState | None:
    """The periodic window at the end of the short step's middle, ``None`` where it is not periodic yet."""
    tolerance = TOLERANCE * events.end
    seconds: float | None = None
    spent = []
    for device, window in enumerate(fold.windows):
        at = cuts[device]
        for stream in at[window.stop]:
            marks = [at[window.stop - k * window.length].get(stream, 0) for k in range(fold.compared + 1)]
            shifts = list(_shifts(events.stream(device, stream), marks))
            if not shifts:
                continue
            seconds = shifts[0] if seconds is None else seconds
            if any(abs(shift - seconds) > tolerance for shift in shifts):
                return None
        records = events.stream(device, COMPUTE)
        begin, end = at[window.start][COMPUTE], at[window.stop][COMPUTE]
        spent.append(
            breakdown(records[begin:end], records[end - 1].end, COMPUTE, since=records[begin - 1].end)
        )
    return None if seconds is None else SteadyState(seconds, spent)


def _shifts(records: Sequence[Record], marks: list[int]) -> Iterator[float]:
    """Differences of start and end between tasks of one window and the next; nan where they do not match."""
    counts = {after - before for after, before in pairwise(marks)}
    if len(counts) != 1:
        yield float("nan")
        return
    count = counts.pop()
    for index in range(marks[-1], marks[0] - count):
        yield records[index + count].start - records[index].start
        yield records[index + count].end - records[index].end


def steady_steps(events: Replay, fold: Fold, wiring: Sequence[DeviceWiring]) -> SteadyState | None:
    """The same where the compared windows are quiet steps, ``None`` also where they are not."""
    tolerance = TOLERANCE * events.end
    seconds: float | None = None
    spent = []
    for device, (window, wired) in enumerate(zip(fold.windows, wiring, strict=True)):
        quiet = events.quiet[device]
        steps = [wired.begins[window.stop - k * window.length] for k in range(fold.compared, -1, -1)]
        if np.isnan(quiet.times[steps[0] : steps[-1]]).any():
            return None
        marks = [quiet.at_marks[step] for step in steps]
        for windows in _times(quiet, steps, marks):
            if len({len(each) for each in windows}) > 1:
                return None
            shifts = np.diff(np.array(windows), axis=0)
            if not shifts.size:
                continue
            seconds = float(shifts.flat[0]) if seconds is None else seconds
            if not (np.abs(shifts - seconds) <= tolerance).all():
                return None
        before, after = (mark.spent for mark in marks[-2:])
        spent.append({category: after[category] - before.get(category, 0.0) for category in after})
    return None if seconds is None else SteadyState(seconds, spent)


def _times(quiet: QuietDevice, steps: Sequence[int], marks: Sequence[Mark]) -> Iterator[list[Times]]:
    """By window, starts and ends of steps and of the messages of each stream."""
    yield [quiet.times[a:b] for a, b in pairwise(steps)]
    for stream in marks[0].posted:
        sent = quiet.sent(stream)
        yield [sent[a.posted[stream] : b.posted[stream]] for a, b in pairwise(marks)]


def extended(spent: dict[str, float], window: dict[str, float], repeats: int) -> dict[str, float]:
    """The breakdown of the long step."""
    return {
        category: spent.get(category, 0.0) + repeats * window.get(category, 0.0)
        for category in dict.fromkeys((*spent, *window))
    }
