"""The moment at which most is alive, on all pipeline devices at once; orders as arrays of kinds of action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulator.memory.activations import Level, Passes, flat
from simulator.schedule.actions import Action, Kind, Order

T = TypeVar("T")
Ints: TypeAlias = NDArray[np.intp]
Floats: TypeAlias = NDArray[np.float64]


class Same(Generic[T]):
    """A thing that is equal to itself alone, as a key: kept alive with it, its identity stays its own."""

    __slots__ = ("thing",)

    def __init__(self, thing: T) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


@dataclass(frozen=True, slots=True)
class _Courses:
    """What devices do, but for which microbatch.

    ``codes[d, i]`` is what device d does i-th, an index into ``samples``; orders that are shorter than others
    end in a code of their own. ``kept[d, i]``: forwards kept when it begins. ``spans[d]``: each of its stages
    with its first and last action but forwards.
    """

    codes: Ints
    samples: tuple[Action, ...]
    kept: Ints
    spans: tuple[tuple[tuple[int, int, int], ...], ...]


def peak_levels(passes: Passes, orders: Sequence[Order]) -> list[Level | None]:
    """By device: the moment when most is alive: kept by forwards whose gradients are not done, what the layer
    being worked on needs, and gradients that are whole for now. None where nothing runs.
    """
    courses = _courses(Same(orders))
    chunks = passes.plan.chunks
    stages = {chunk: stage for stage, chunk in enumerate(chunks)}  # one of each, as most are alike
    alone = {chunk: passes.chunk(stage).changes for chunk, stage in stages.items()}
    changes = [
        alone[chunks[action.stage]][action.kind] if action.partner is None else _together(passes, action)
        for action in courses.samples
    ]
    rise = np.array([*(rise for rise, _ in changes), -np.inf])
    left = np.array([*(left for _, left in changes), 0.0])
    after = np.cumsum(left[courses.codes], axis=1)
    before = np.zeros_like(after)
    before[:, 1:] = after[:, :-1]
    most = before + rise[courses.codes]
    gradients = _whole_gradients(passes, courses)
    highest = (most + gradients).argmax(axis=1)
    return [
        Level(
            action=order[at],
            kept=int(courses.kept[d, at]),
            most=float(most[d, at]),
            alive=float(after[d, at]),
            gradients=float(gradients[d, at]),
        )
        if order
        else None
        for d, (order, at) in enumerate(zip(orders, highest.tolist(), strict=True))
    ]


def _together(passes: Passes, pair: Action) -> tuple[float, float]:
    """The most that a pair adds to what was alive before it, and what it leaves."""
    parts = pair.parts
    left = sum([passes.chunk(one.stage).changes[one.kind][1] for one in parts])
    return passes.together(*parts), left


def _whole_gradients(passes: Passes, courses: _Courses) -> Floats:
    """What :func:`simulator.memory.activations.whole_gradients` says, of all devices."""
    found = np.zeros(courses.codes.shape)
    if passes.plan.data.frees_whole_gradients:
        for d, spans in enumerate(courses.spans):
            for stage, first, last in spans:
                found[d, first : last + 1] += (
                    passes.plan.chunks[stage].parameters * passes.plan.data.grad_bytes
                )
    return found


@lru_cache(maxsize=32)  # as many as there are orders of similar runs
def _courses(orders: Same[Sequence[Order]]) -> _Courses:
    longest = max([1, *map(len, orders.thing)])
    codes: dict[tuple[object, ...], int] = {}
    samples: list[Action] = []
    rows = []
    for order in orders.thing:
        row = []
        for action in order:
            partner = action.partner
            key = action[:2] if partner is None else (*action[:2], *partner[:2])
            code = codes.get(key)
            if code is None:
                code = codes[key] = len(samples)
                samples.append(action)
            row.append(code)
        rows.append(row)
    gains = np.array([*(_gain(action) for action in samples), 0])
    padded = np.array([row + [len(samples)] * (longest - len(row)) for row in rows], dtype=np.intp)
    kept = np.zeros_like(padded)
    np.cumsum(gains[padded[:, :-1]], axis=1, out=kept[:, 1:])
    return _Courses(padded, tuple(samples), kept, tuple(map(_spans, orders.thing)))


def _spans(order: Order) -> tuple[tuple[int, int, int], ...]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, action in enumerate(order):
        for one in action.parts:
            if one.kind is not Kind.F:
                last[one.stage] = index
                first.setdefault(one.stage, index)
    return tuple((stage, begin, last[stage]) for stage, begin in first.items())


def _gain(action: Action) -> int:
    """By how many an action changes the forwards that are kept."""
    return sum({Kind.F: 1, Kind.W: 0}.get(one.kind, -1) for one in flat([action]))
