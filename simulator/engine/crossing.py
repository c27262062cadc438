"""Communication that quiet steps wait for themselves: gathers, and blocking exchanges of two devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from simulator.engine.lane import Lane
from simulator.engine.links import Transfer
from simulator.engine.tasks import Task


class Crossing:
    """Communication that a device waits for: a passage over its links."""

    __slots__ = ("_changed", "end", "start", "task", "transfer")

    def __init__(self, task: Task, start: float, changed: Callable[[Crossing], None]) -> None:
        self._changed = changed
        self.task = task
        self.start = start
        self.end = start + task.seconds
        self.transfer: Transfer | None = None

    def begin(self, lane: Lane) -> None:
        """Takes its links, which may retime whatever is on them."""
        if self.task.flow is not None and lane.links is not None:
            lane.links.pass_over(lane.links_of(self.task), self)

    def retimed(self) -> None:
        """Implements :class:`simulator.engine.links.Passage`."""
        if self.transfer is not None:
            self.end = self.transfer.end
            self._changed(self)


class Side(Protocol):
    """A device in a blocking exchange."""

    def side(self) -> Task:
        """What it does in its current exchange."""
        ...

    def exchanges(self, both: BothSides, start: float, end: float) -> None:
        """The other side has come."""
        ...

    def exchange_retimed(self, both: BothSides, end: float) -> None:
        """The exchange ends at another time, unless it is over already."""
        ...


class BothSides:
    """A blocking exchange between two devices that have met: over when both sides are."""

    __slots__ = ("_devices", "_left", "_sides")

    def __init__(self, lane: Lane, at: float, devices: Sequence[Side]) -> None:
        self._devices = devices
        self._left = False
        self._sides: Sequence[Crossing] = [Crossing(device.side(), at, self._retimed) for device in devices]
        for side in self._sides:
            side.begin(lane)
        for device in devices:
            device.exchanges(self, at, self._end)

    @property
    def undisturbed(self) -> bool:
        """Whether both are in it, and neither direction has met anything on its links."""
        return not self._left and all(side.transfer is None for side in self._sides)

    def leave(self) -> None:
        """One of them goes on."""
        if self._left:
            self._devices = self._sides = ()
        self._left = True

    @property
    def _end(self) -> float:
        return max(side.end for side in self._sides)

    def _retimed(self, _: Crossing) -> None:
        for device in self._devices:
            device.exchange_retimed(self, self._end)
