"""Transfers on the uplinks of oversubscribed switches, which ranks share with all others below a switch.

Programs say what part of a rank's transfer leaves its switches. Here that becomes links. Where every rank is
simulated, each crosses the uplinks of its own switch. Where one stands for its class, its transfer crosses
one link per kind of switch its class sits under, as often as the class is found there: transfers move at the
pace of the slowest of their ranks. Links that cannot fill are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from simulator.engine.tasks import Flow, Leaving, Streams, Task
from simulator.network.uplinks import Uplinks, alike

Path: TypeAlias = tuple[tuple[tuple[str, Hashable], float], ...]
"""Links, and the share of a rank's rate that each carries, as a part of what one rank has of the link."""
Paths: TypeAlias = Callable[[int, Leaving], Path]
"""Of a simulated rank."""
FULL = 1 + 1e-9  # of a link


class Above(NamedTuple):
    """Whose uplinks: those of a switch, or of all that are loaded as this one is."""

    switch: int


def directions(name: str) -> tuple[str, str]:
    """The kinds of links of some uplinks: out of the switches below, and into them."""
    return f"{name} out", f"{name} in"


def paths_of_ranks(uplinks: Sequence[Uplinks]) -> Paths:
    """Where every rank is simulated, numbered device by device."""
    size = uplinks[0].switch.shape[1]

    def path(rank: int, leaving: Leaving) -> Path:
        up = uplinks[leaving.level]
        device, place = divmod(rank, size)
        here = int(up.switch[device, place])
        there = here if leaving.target is None else int(up.switch[leaving.target, place])
        if leaving.target is not None and here == there:
            return ()
        out, into = directions(leaving.name)
        return (
            ((out, Above(here)), leaving.share / int(up.ranks[here])),
            ((into, Above(there)), leaving.share / int(up.ranks[there])),
        )

    return path


def paths_of_classes(uplinks: Sequence[Uplinks], of_place: np.ndarray) -> Paths:
    """Where classes are simulated, each device by device; ``of_place``: the class of each place."""
    devices, classes = len(uplinks[0].switch), range(int(of_place.max()) + 1)
    loads = [[up.of(of_place == number) for number in classes] for up in uplinks]
    shown = [np.unique(alike(each)).tolist() for each in loads]

    def path(rank: int, leaving: Leaving) -> Path:
        number, device = divmod(rank, devices)
        own, to = loads[leaving.level][number], leaving.target
        both = (own.below[device],) * 2 if to is None else own.crossing(device, to)
        return tuple(
            ((direction, Above(switch)), leaving.share * float(load[switch]))
            for direction, load in zip(directions(leaving.name), both, strict=True)
            for switch in shown[leaving.level]
            if load[switch]
        )

    return path


def switches_of(up: Uplinks, device: int, *, every_rank: bool) -> list[Above]:
    """Whose uplinks a device's ranks use: one of each kind of switches, or the one of its first rank."""
    if every_rank:
        return [Above(int(up.switch[device, 0]))]
    return [Above(int(switch)) for switch in np.unique(up.alike[up.below[device] > 0])]


def on_uplinks(
    ranks: Mapping[int, Streams], paths: Paths, capacities: Mapping[str, float]
) -> dict[int, Streams]:
    """The streams with their transfers on uplinks, where some of those may fill up."""
    found = {
        (rank, flow): tuple(step for leaving in flow.leaving for step in paths(rank, leaving))
        for rank, streams in ranks.items()
        for tasks in streams.values()
        for flow in {task.flow for task in tasks if task.flow is not None and task.flow.leaving}
    }
    crowded = {
        link for link, rate in _most_at_once(ranks, found).items() if rate > capacities[link[0]] * FULL
    }
    known = {
        key: _through(key[1], tuple(step for step in path if step[0] in crowded))
        for key, path in found.items()
    }
    return {
        rank: {name: [_crossing(task, rank, known) for task in tasks] for name, tasks in streams.items()}
        for rank, streams in ranks.items()
    }


def _most_at_once(
    ranks: Mapping[int, Streams], found: Mapping[tuple[int, Flow], Path]
) -> dict[tuple[str, Hashable], float]:
    """The most bytes/s on each link, as every stream does one thing at a time."""
    total: defaultdict[tuple[str, Hashable], float] = defaultdict(float)
    for rank, streams in ranks.items():
        for tasks in streams.values():
            most: defaultdict[tuple[str, Hashable], float] = defaultdict(float)
            for flow in {task.flow for task in tasks if task.flow is not None}:
                for link, share in found.get((rank, flow), ()):
                    most[link] = max(most[link], share * flow.rate)
            for link, rate in most.items():
                total[link] += rate
    return total


def _through(flow: Flow, path: Path) -> Flow:
    if not path:
        return flow
    crossings = (*(flow.crossings or (1.0,) * len(flow.links)), *(share for _, share in path))
    return flow._replace(links=(*flow.links, *(link for link, _ in path)), crossings=crossings)


def _crossing(task: Task, rank: int, known: Mapping[tuple[int, Flow], Flow]) -> Task:
    if task.flow is None or not task.flow.leaving:
        return task
    return task._replace(flow=known[rank, task.flow])
