"""The longest path through a schedule's orders, each stage with its own times: no step is shorter.

Devices run their actions in order and wait for nothing but their inputs: F(s) for F(s−1), B(s) for B(s+1),
each a message later where it comes from another device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from simulator.schedule.actions import Action, Kind
from simulator.schedule.definition import Schedule

MOST_ACTIONS: Final = 60_000  # walking through more takes as long as what it may save
NOTHING: Final = -1  # the place of what is there from the beginning


class _Step(NamedTuple):
    """An action: its duration by place in a list of all stages' forwards, then backwards; the steps it comes
    after, on its device and along the model; and the link from the latter, the last one taking no time."""

    duration: int
    before: int
    awaited: int
    link: int


class Walk(NamedTuple):
    """Actions in an order in which each comes after what it waits for. ``last``: the last of device 0."""

    steps: tuple[_Step, ...]
    last: int

    def seconds(self, durations: Sequence[float], links: Sequence[float]) -> float:
        """When device 0 is done. ``links``: of a message, by ring link, and 0 for one that stays."""
        ends = [0.0] * (len(self.steps) + 1)  # the last one is that of NOTHING
        for place, (duration, before, awaited, link) in enumerate(self.steps):
            begin, arrival = ends[before], ends[awaited] + links[link]
            ends[place] = (arrival if arrival > begin else begin) + durations[duration]
        return ends[self.last]


@lru_cache(maxsize=32)  # similar runs have it in common
def walk(schedule: Schedule, p: int, v: int, m: int, links: tuple[int, ...]) -> Walk | None:
    """A schedule's orders of full forwards and backwards, ``None`` where they are too many to be worth it.

    ``links``: by stage but the last, the link to the next one, p where both are on one device.
    """
    if 2 * m * v * p > MOST_ACTIONS:
        return None
    orders = schedule.checked_order(p, m, v)
    stages, places = len(links) + 1, dict[tuple[Kind, int, int], int]()
    steps: list[_Step] = []
    next_of, last_of = [0] * p, [NOTHING] * p
    moved = True
    while moved:
        moved = False
        for device, order in enumerate(orders):
            while next_of[device] < len(order):
                action = order[next_of[device]]
                source, link = _source(action, stages, links)
                awaited = NOTHING if source is None else places.get(source)
                if awaited is None:
                    break
                duration = action.stage + (0 if action.kind is Kind.F else stages)
                places[action[:3]] = len(steps)
                steps.append(_Step(duration, last_of[device], awaited, link if source else p))
                last_of[device] = len(steps) - 1
                next_of[device] += 1
                moved = True
    return Walk(tuple(steps), last_of[0])


def _source(action: Action, stages: int, links: Sequence[int]) -> tuple[tuple[Kind, int, int] | None, int]:
    """What an action waits for from the stage beside it, and the link to that."""
    kind, stage, microbatch = action[:3]
    if kind is Kind.F:
        return ((kind, stage - 1, microbatch), links[stage - 1]) if stage else (None, 0)
    return ((kind, stage + 1, microbatch), links[stage]) if stage + 1 < stages else (None, 0)
