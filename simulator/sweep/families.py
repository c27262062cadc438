"""Who evaluates what: layouts under one schedule go to one worker, because they share its orders."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import islice
from typing import TypeAlias

from simulator.sweep.space import Layout

Take: TypeAlias = Callable[[int], list[Layout]]
"""The next layouts for a worker, by its number; none when there are no more."""

LARGEST_CHUNK = 48


def one_by_one(layouts: Iterable[Layout]) -> Take:
    """In their order, whoever comes."""
    source = iter(layouts)
    return lambda _: list(islice(source, 1))


class Families:
    """Layouts by schedule. A worker stays with a family until it is done, then begins the longest one left;
    where all have been begun, it helps with the one that has most left.
    """

    def __init__(self, layouts: Sequence[Layout], workers: int) -> None:
        self._workers = workers
        self._left = len(layouts)
        self._chosen: dict[int, deque[Layout]] = {}
        members = defaultdict[Hashable, list[Layout]](list)
        for layout in layouts:
            members[_schedule(layout)].append(layout)
        families = [deque(sorted(family, key=_actions, reverse=True)) for family in members.values()]
        self._families = sorted(families, key=_work, reverse=True)
        self._untouched = deque(self._families)

    def __call__(self, worker: int) -> list[Layout]:
        """The next ones for a worker: few, so that results come often and nobody waits long for the last."""
        if not self._left:
            return []
        family = self._chosen.get(worker)
        if not family:
            family = self._chosen[worker] = self._another()
        size = max(1, min(LARGEST_CHUNK, self._left // (8 * self._workers), len(family)))
        self._left -= size
        return [family.popleft() for _ in range(size)]

    def _another(self) -> deque[Layout]:
        if self._untouched:
            return self._untouched.popleft()
        return max(self._families, key=_work)


def _schedule(layout: Layout) -> Hashable:
    p = layout.run.parallelism
    return p.pp, p.vp, p.schedule


def _actions(layout: Layout) -> int:
    """Of a microbatch on all devices, times microbatches."""
    p = layout.run.parallelism
    return p.pp * p.vp * layout.run.microbatches


def _work(family: Sequence[Layout]) -> int:
    """About how long a family takes: steady states are replayed once, however many microbatches there are."""
    if not family:
        return 0
    p = family[0].run.parallelism
    return len(family) * p.pp * p.vp
