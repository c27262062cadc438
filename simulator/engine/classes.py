"""Which replicas behave alike: one of each class is simulated.

A *cell* is what moves in step inside blocks: the ranks of a pipeline device joined by TP, CP and EP groups.
Its slowest rank gates every one of its collectives, so a cell with a straggler takes exactly the straggler's
time. The same cells of all devices form a *replica*; a straggler sets its own apart. Replicas meet in
collectives of data parallelism only: two of them behave alike when the groups they meet in hold equally many
of every kind (the coarsest equitable partition, by colour refinement).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lcm

import numpy as np

from simulator.engine.conditions import SOUND, Condition, Places
from simulator.engine.finish import PAIR, WORLD
from simulator.engine.tasks import Meeting, Streams, Task, Token
from simulator.engine.world import JOINED, Layout
from simulator.network.uplinks import Uplinks, alike

MOST = 64  # ranks that are simulated because replicas are in unlike places


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaClass:
    """Replicas that do the same at the same time: their cells' numbers on every device.

    ``conditions``: of the cells, by device. ``meets``: by axis of data parallelism, the classes in its group.
    """

    cells: tuple[int, ...]
    conditions: tuple[Condition, ...]
    meets: Mapping[str, tuple[int, ...]]

    @property
    def replicas(self) -> int:
        """How many there are."""
        return len(self.cells)


def cell_size(layout: Layout) -> int:
    """Ranks of a device that TP, CP and EP groups join."""
    return lcm(layout.tp * layout.cp, layout.ep * layout.etp)


def replicas(layout: Layout) -> int:
    """Cells of a device."""
    return layout.tp * layout.dp // cell_size(layout)


def replica_classes(
    layout: Layout, slow: Places, uplinks: Sequence[Uplinks] = ()
) -> tuple[ReplicaClass, ...]:
    """The classes of replicas, the most common one first.

    Where they are under unlike switches of those ``uplinks``, they differ too, unless that makes too many:
    then all go at the pace of those with the busiest uplinks.
    """
    return _found(layout, slow, uplinks) if slow or uplinks else _undisturbed(layout)


@lru_cache(maxsize=256)  # similar runs have it in common
def _undisturbed(layout: Layout) -> tuple[ReplicaClass, ...]:
    return _found(layout, {}, ())


def _found(layout: Layout, slow: Places, uplinks: Sequence[Uplinks]) -> tuple[ReplicaClass, ...]:
    conditions = _conditions(layout, slow)
    groups = _groups(layout)
    colours = _numbered(conditions)
    while True:
        finer = _numbered(_views(colours, groups, _above(colours, layout, uplinks)))
        if max(finer) == max(colours):
            break
        if uplinks and (max(finer) + 1) * layout.devices > MOST:
            return replica_classes(layout, slow)
        colours = finer
    common = [colour for colour, _ in Counter(colours).most_common()]
    number = {colour: index for index, colour in enumerate(common)}
    found = []
    for colour in common:
        cell = colours.index(colour)
        meets = {
            axis: tuple(sorted({number[colours[other]] for other in members[cell]}))
            for axis, members in groups.items()
        }
        cells = tuple(cell for cell, own in enumerate(colours) if own == colour)
        found.append(ReplicaClass(cells=cells, conditions=conditions[cell], meets=meets))
    return tuple(found)


def of_places(classes: Sequence[ReplicaClass], layout: Layout) -> np.ndarray:
    """The class of every place within a device."""
    of_cell = np.zeros(replicas(layout), dtype=np.int64)
    for number, replica in enumerate(classes):
        of_cell[list(replica.cells)] = number
    return np.repeat(of_cell, cell_size(layout))


def _above(colours: Sequence[int], layout: Layout, uplinks: Sequence[Uplinks]) -> list[Hashable]:
    """By cell: under what kinds of switches its ranks are, and which of its messages leave them."""
    size, count = cell_size(layout), replicas(layout)
    if not uplinks:
        return [None] * count
    of_place = np.repeat(np.array(colours), size)
    seen: list[np.ndarray] = []
    for up in uplinks:
        kinds = alike([up.of(of_place == colour) for colour in range(max(colours) + 1)])
        cells = (layout.devices, count, size)
        leave = up.switch != np.roll(up.switch, -1, axis=0)
        places = 2 * kinds[up.switch] + leave
        seen.append(np.sort(places.reshape(cells), axis=2).transpose(1, 0, 2).reshape(count, -1))
    return [row.tobytes() for row in np.concatenate(seen, axis=1)]


def _conditions(layout: Layout, slow: Places) -> list[tuple[Condition, ...]]:
    """By cell and device: that of the slowest rank."""
    size = cell_size(layout)
    found = [[SOUND] * layout.devices for _ in range(replicas(layout))]
    for (device, place), condition in slow.items():
        cell = found[place // size]
        cell[device] = cell[device].worse(condition)
    return [tuple(cell) for cell in found]


def _groups(layout: Layout) -> dict[str, list[tuple[int, ...]]]:
    """By axis of data parallelism: the cells that a cell meets there."""
    count = replicas(layout)
    shard = max(1, (layout.shard or layout.dp) * layout.tp // cell_size(layout))  # cells of a shard group
    everyone = tuple(range(count))
    shards = [tuple(range(first, first + shard)) for first in range(0, count, shard)]
    counterparts = [tuple(range(first, count, shard)) for first in range(shard)]
    return {
        "dp_cp": [everyone] * count,
        "edp": [everyone] * count,
        "shard": [shards[cell // shard] for cell in range(count)],
        "replicate": [counterparts[cell % shard] for cell in range(count)],
    }


def _views(
    colours: Sequence[int], groups: Mapping[str, list[tuple[int, ...]]], above: Sequence[Hashable]
) -> list[Hashable]:
    """What each cell can tell about itself, those it meets and what is above it."""
    seen: dict[int, int] = {}
    kinds: dict[tuple[int, ...], int] = {}  # numbered: as long as a group, and all in it tell the same
    for members in groups.values():
        for group in members:
            if id(group) not in seen:
                seen[id(group)] = kinds.setdefault(
                    tuple(sorted(colours[other] for other in group)), len(kinds)
                )
    return [
        (colour, above[cell], *(seen[id(members[cell])] for members in groups.values()))
        for cell, colour in enumerate(colours)
    ]


def _numbered(things: Sequence[Hashable]) -> list[int]:
    """Equal things get equal numbers, in the order in which they come."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(thing, len(numbers)) for thing in things]


def one_of_each(
    programs: Sequence[Sequence[Streams]], classes: Sequence[ReplicaClass], layout: Layout
) -> dict[int, Streams]:
    """One simulated rank per class and device, numbered class by class.

    Args:
        programs: by class and device.
        classes: the most common one, whose tokens and links keep their names, first.

    Collectives of data parallelism are meetings of the classes that take part; all others of a group are
    timed, as it moves in step.
    """
    devices = len(programs[0])
    ranks: dict[int, Streams] = {}
    for number, (streams_of, replica) in enumerate(zip(programs, classes, strict=True)):
        for device, streams in enumerate(streams_of):
            scope = _Scope(number, device, layout.holders(device), replica, len(classes))
            ranks[number * devices + device] = {
                name: [scope.task(task) for task in tasks] for name, tasks in streams.items()
            }
    return ranks


class _Scope:
    """A class and a device: which copy of a token, link or meeting is its own."""

    def __init__(
        self, number: int, device: int, holders: tuple[int, ...], replica: ReplicaClass, classes: int
    ) -> None:
        self._number = number
        self._holders = holders
        self._device = device
        self._replica = replica
        self._classes = classes

    def task(self, task: Task) -> Task:
        """The task with its tokens, links and meeting scoped."""
        meeting = None if task.meeting is None else self._meeting(task.meeting)
        if not self._number:
            return task._replace(meeting=meeting)
        return task._replace(
            waits=tuple(map(self._token, task.waits)),
            signal=None if task.signal is None else self._token(task.signal),
            begun=None if task.begun is None else self._token(task.begun),
            meeting=meeting,
            flow=task.flow and task.flow._replace(links=tuple(map(self._link, task.flow.links))),
        )

    def _meeting(self, meeting: Meeting) -> Meeting | None:
        axis = meeting.key[0]  # type: ignore[index]
        if axis == WORLD:
            return meeting._replace(members=meeting.members * self._classes)
        if axis == PAIR:
            return meeting._replace(key=(self._number, meeting.key))
        met = self._replica.meets.get(axis, ())
        devices = self._holders if axis in JOINED else (self._device,)
        members = len(met) * len(devices)
        return Meeting((devices, met, meeting.key), members) if members > 1 else None

    def _token(self, token: Token) -> Token:
        return (self._number, token)

    def _link(self, link: tuple[str, Hashable]) -> tuple[str, Hashable]:
        kind, device = link
        return kind, (device, (self._number,))
