"""From programs of devices to simulated ranks: one per rank class, or every rank of the world.

Ranks that differ only in their TP, CP or DP position do the same work at the same time: the class of a
pipeline device stands for all of them, and a collective among them is a timed task. Simulating every rank
turns each collective into a meeting of its members; both must give the same step time.

Where two pipeline devices hold copies of the same stages (DualPipe), their data-parallel groups are one, so
that its collectives are meetings of both devices in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from simulator.engine.finish import PAIR, WORLD
from simulator.engine.tasks import Meeting, Streams, Task

JOINED = frozenset({"dp_cp", "edp"})  # groups that span both devices of two copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes of the groups that a pipeline device stands for.

    ``dp`` counts DP × CP, CP varying fastest; ``shard`` neighbours of it hold shards of the same parameters
    (0: all of it). ``tp_grid``: rows, columns and depth of a tensor-parallel group (0: it has rows only).
    ``ep`` and ``etp`` divide the same ranks once more, for routed experts. With ``copies`` 2
    device i and the i-th from the end hold the same stages.
    """

    tp: int
    dp: int
    devices: int
    tp_grid: tuple[int, int, int] = (0, 1, 1)
    cp: int = 1
    cp_inner: int = 1
    shard: int = 0
    ep: int = 1
    etp: int = 1
    copies: int = 1

    def holders(self, device: int) -> tuple[int, ...]:
        """The devices that hold what a device holds, itself among them."""
        return (device,) if self.copies == 1 else tuple(sorted({device, self.devices - 1 - device}))

    @property
    def world(self) -> int:
        """All ranks."""
        return self.tp * self.dp * self.devices

    @property
    def edp(self) -> int:
        """Copies of a routed expert."""
        return self.tp * self.dp // (self.ep * self.etp)


def rank_classes(programs: Sequence[Streams], layout: Layout) -> dict[int, Streams]:
    """One simulated rank per device: collectives of its group are timed, meetings of devices stay."""
    ranks: dict[int, Streams] = {}
    for device, streams in enumerate(programs):
        holders = layout.holders(device)
        ranks[device] = {
            name: [task if task.meeting is None else _for_class(task, holders) for task in tasks]
            for name, tasks in streams.items()
        }
    return ranks


def _for_class(task: Task, holders: tuple[int, ...]) -> Task:
    meeting = task.meeting
    if meeting is None or meeting.members:
        return task
    if len(holders) > 1 and meeting.key[0] in JOINED:  # type: ignore[index]
        return task._replace(meeting=Meeting((holders, meeting.key), len(holders)))
    return task._replace(meeting=None)


def every_rank(program: Callable[[int, int], Streams], layout: Layout) -> dict[int, Streams]:
    """Every rank of the world, numbered dp-major within a device.

    ``program``: the streams of a device's rank, by its place within the device.
    """
    ranks: dict[int, Streams] = {}
    for device, (dp, tp) in product(range(layout.devices), product(range(layout.dp), range(layout.tp))):
        scope = _Scope(layout, device, dp, tp)
        place = dp * layout.tp + tp
        ranks[device * layout.dp * layout.tp + place] = {
            name: [scope.task(task) for task in tasks] for name, tasks in program(device, place).items()
        }
    return ranks


def _grid_groups(scope: tuple[int, int], tp: int, layout: Layout) -> dict[str, tuple[object, int]]:
    """The groups of a rank in its tensor-parallel group's grid."""
    rows, columns, depth = layout.tp_grid[0] or layout.tp, *layout.tp_grid[1:]
    square = rows * columns
    return {
        "tp_row": ((*scope, tp // rows), rows),
        "tp_col": ((*scope, tp % rows, tp // square), columns),
        "tp_depth": ((*scope, tp % square), depth),
    }


class _Scope:
    """The coordinates of one rank: which copy of a token or meeting is its own."""

    def __init__(self, layout: Layout, device: int, dp: int, tp: int) -> None:
        self._replica = (dp, tp)
        shard = layout.shard or layout.dp
        holders = layout.holders(device)
        place = dp * layout.tp + tp  # within the device; expert axes count it as etp, ep, edp
        etp, ep, edp = (
            place % layout.etp,
            place // layout.etp % layout.ep,
            place // (layout.etp * layout.ep),
        )
        self._groups: Mapping[str, tuple[object, int]] = {
            WORLD: ((), layout.world),
            PAIR: (self._replica, 2),
            "tp": ((device, dp), layout.tp),
            **_grid_groups((device, dp), tp, layout),
            "dp_cp": ((holders, tp), layout.dp * len(holders)),
            "cp": ((device, tp, dp // layout.cp), layout.cp),
            "cp_inner": ((device, tp, dp // layout.cp_inner), layout.cp_inner),
            "cp_outer": (
                (device, tp, dp // layout.cp, dp % layout.cp_inner),
                layout.cp // layout.cp_inner,
            ),
            "shard": ((device, tp, dp // shard), shard),
            "replicate": ((device, tp, dp % shard), layout.dp // shard),
            "etp": ((device, "etp", ep, edp), layout.etp),
            "ep": ((device, "ep", etp, edp), layout.ep),
            "edp": ((holders, "edp", etp, ep), layout.edp * len(holders)),
        }

    def task(self, task: Task) -> Task:
        """The task with its tokens and its meeting scoped to this rank."""
        meeting = None
        if task.meeting is not None:
            key = task.meeting.key
            group, members = self._groups[key[0]]  # type: ignore[index]
            meeting = task.meeting._replace(key=(group, key), members=members)
        return task._replace(
            waits=tuple((self._replica, token) for token in task.waits),
            signal=None if task.signal is None else (self._replica, task.signal),
            begun=None if task.begun is None else (self._replica, task.begun),
            meeting=meeting,
            flow=task.flow and task.flow._replace(links=tuple(map(self.link, task.flow.links))),
        )

    def link(self, link: tuple[str, Hashable]) -> tuple[str, Hashable]:
        """The replica's own copy of a device's link."""
        kind, device = link
        return kind, (device, self._replica)
