"""A periodic steady state is replayed once: a long step from a short one of the same schedule.

Many schedules repeat a window of actions in their middle, shifted by ``period`` microbatches. A step of more
microbatches is the same step with more windows, and takes ``seconds`` more for each of them once the replay
has become periodic. Of quiet devices their state tells (:mod:`simulator.engine.recurrence`). Of others, every
stream must have run its last windows each exactly ``seconds`` later than the one before, as many of them as a
window depends on (:mod:`simulator.engine.reach`): what a window does depends on those windows and on
differences of time only, so all later windows do the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from cachetools import LRUCache, cached

from simulator.engine.attribution import breakdown
from simulator.engine.messages import Pipeline
from simulator.engine.reach import Window, compared_windows
from simulator.engine.recurrence import TOLERANCE, Recurrence, Repeating
from simulator.engine.replay import Replay
from simulator.engine.tasks import COMPUTE, Record
from simulator.engine.wiring import steady_actions
from simulator.schedule.actions import Action, Kind, Order
from simulator.schedule.definition import Schedule

WORTH = 1.25  # a short step must be this many times shorter
MOST_ACTIONS = 1_000_000  # remembered, of 100 bytes each


class Fold(NamedTuple):
    """A short step that stands for a long one."""

    microbatches: int  # of the short one
    orders: list[Order]
    repeats: int = 0  # windows the long step has and the short one has not
    repeating: Sequence[Repeating] = ()  # of quiet steps
    windows: Sequence[Window] = ()  # of others, and how many in a row must be equal but for a shift:
    compared: int = 0


Cuts = list[dict[int, dict[str, int]]]
"""Per device: action index → stream → tasks issued before it."""


def folds(schedule: Schedule, p: int, m: int, v: int, *, blocking: bool, quiet: bool) -> Iterator[Fold]:
    """Short steps worth trying for a step of ``m`` microbatches, shortest first.

    Of ``quiet`` steps one state that comes back will do; of others, windows that repeat, which takes longer.
    """
    for period in dict.fromkeys((1, 2, p)):
        mostly = (p + 2 * period, p + 3 * period) if quiet else (2 * p + 3 * period,)
        for least in (*mostly, 4 * p + 4 * period):  # the last for what stays out of step longer
            short = least + (m - least) % period
            fold = _fold(schedule, p, short, v, period, blocking, quiet) if WORTH * short <= m else None
            if fold is not None:
                yield fold._replace(repeats=(m - short) // period)


def _actions(orders: Sequence[Order]) -> int:
    return sum(map(len, orders))


@cached(LRUCache(maxsize=MOST_ACTIONS, getsizeof=_actions))  # similar runs have it in common
def whole_order(schedule: Schedule, p: int, m: int, v: int) -> list[Order]:
    """All actions of a step. Raises ValueError where the schedule is not defined."""
    return schedule.checked_order(p, m, v)


@cached(LRUCache(maxsize=MOST_ACTIONS, getsizeof=lambda fold: 1 + (_actions(fold.orders) if fold else 0)))
def _fold(
    schedule: Schedule, p: int, short: int, v: int, period: int, blocking: bool, quiet: bool
) -> Fold | None:
    """A step of so many microbatches, if one that has ``period`` more is the same with one more window."""
    if schedule.check(p, short, v) or schedule.check(p, short + period, v):
        return None
    orders = whole_order(schedule, p, short, v)
    longer = whole_order(schedule, p, short + period, v)
    shift = period // schedule.directions  # each direction counts its own microbatches
    windows = [_window(a, b, shift) for a, b in zip(orders, longer, strict=True)]
    found = [window for window in windows if window is not None]
    if len(found) != p:
        return None
    fold = Fold(short, orders)
    if quiet:
        repeating = [_repeating(order, window, shift) for order, window in zip(orders, found, strict=True)]
        long_enough = all(own.stop - own.length > own.begin for own in repeating)
        return fold._replace(repeating=repeating) if long_enough else None
    moved = _before_the_edges(found, orders)
    stages = 1 + max(action.stage for order in orders for action in order)
    pipeline = Pipeline(schedule.placement(p, v), stages, schedule.directions)
    compared = compared_windows(pipeline, orders, moved, blocking=blocking) if len(moved) == p else None
    if compared is None or any(window.stop <= compared * window.length for window in moved):
        return None
    return fold._replace(windows=moved, compared=compared)


def _repeating(order: Order, window: Window, shift: int) -> Repeating:
    """Where an order repeats that has the window, short of its stages' last gradients and of its edges."""
    steady, length = steady_actions(order), window.length
    stop = min(window.stop, steady.stop, *_last_gradients(order))
    begin = stop - length
    while begin > steady.start and _shifted(order[begin - 1], shift) == order[begin - 1 + length]:
        begin -= 1
    return Repeating(begin, stop, length)


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
        back = max(back, -((min(_last_gradients(order), default=window.stop) - window.stop) // window.length))
    moved = [Window(w.start - back * w.length, w.stop - back * w.length) for w in windows]
    return [w for w in moved if w.start > 0]


def _last_gradients(order: Order) -> Collection[int]:
    """Where stages come to their last gradients."""
    return {
        a.stage: i for i, action in enumerate(order) for a in action.parts if a.kind is not Kind.F
    }.values()


def _shifted(action: Action, by: int) -> Action:
    kind, stage, microbatch, direction, partner = action
    return Action(kind, stage, microbatch + by, direction, partner and _shifted(partner, by))


def cut_points(fold: Fold) -> list[list[int]]:
    """Per device, the action indices between which windows are compared."""
    return [[w.stop - k * w.length for k in range(fold.compared + 1)] for w in fold.windows]


def steady_state(events: Replay, fold: Fold, cuts: Cuts) -> Recurrence | None:
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
    return None if seconds is None else Recurrence(seconds, spent)


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


def extended(spent: dict[str, float], window: dict[str, float], repeats: int) -> dict[str, float]:
    """The breakdown of the long step."""
    return {
        category: spent.get(category, 0.0) + repeats * window.get(category, 0.0)
        for category in dict.fromkeys((*spent, *window))
    }
