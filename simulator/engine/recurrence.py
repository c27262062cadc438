"""A steady state found by the state of all devices that comes back.

What quiet devices do next depends on where they stand in their orders, on since when the step under way has
been running, on messages under way, and on nothing else. Where all that is the same at two instants but for a
shift of one window per device, all that follows is the same too, as long as the orders repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulator.engine.course import Times
from simulator.engine.quiet import QuietDevice
from simulator.engine.replay import Replay
from simulator.engine.survey import Wiring
from simulator.engine.tasks import COMPUTE

TOLERANCE = 1e-12  # of the step: rounding of sums


class Repeating(NamedTuple):
    """Where a device's order repeats: each action of [begin, stop) but the last ``length`` comes again, with
    another microbatch, so many actions later."""

    begin: int
    stop: int
    length: int


class Recurrence(NamedTuple):
    """One window in its periodic state."""

    seconds: float
    breakdowns: list[dict[str, float]]  # per device, each summing to ``seconds``


def recurrence(events: Replay, orders: Sequence[Repeating], wiring: Wiring) -> Recurrence | None:
    """The window before the first device comes to the end of what repeats, if it is a repetition."""
    devices = [_Device(events.quiet[number], own, wiring, number) for number, own in enumerate(orders)]
    if not all(device.runs_through for device in devices):
        return None
    tolerance = TOLERANCE * events.end
    first = min(devices, key=lambda device: device.ends[-1])
    seconds = float(first.ends[-1] - first.ends[-1 - first.length])
    until = float(first.ends[-1]) - tolerance  # just before, so that what ends at that instant is under way
    since = until - seconds
    begun = min(device.stand_at(since, until) for device in devices)
    if not all(device.repeats(begun, seconds, tolerance) for device in devices):
        return None
    if _others_run(events, begun, until):
        return None
    return Recurrence(seconds, [device.took() for device in devices])


def _others_run(events: Replay, since: float, until: float) -> bool:
    """Whether anything but quiet steps and their messages was under way between two instants."""
    return any(
        record.start < until and record.end > since
        for (_, stream), records in events.records.items()
        for record in records
        if stream != COMPUTE or record.task.steps is None
    )


class _Flight(NamedTuple):
    """Messages of a stream: when they left and arrived, how many were sent before what repeats, how many
    more a window sends, and how many had left and arrived at both instants."""

    rows: Times
    before: int
    shift: int
    left: int
    left_then: int
    arrived: int
    arrived_then: int


class _Device:
    """A device at two instants. Steps are counted from the first that repeats."""

    def __init__(self, quiet: QuietDevice, order: Repeating, wiring: Wiring, number: int) -> None:
        self._quiet = quiet
        begins = wiring.devices[number].begins
        self._first = begins[order.begin]
        stop, before = begins[order.stop], begins[order.stop - order.length]
        self.length = stop - before
        self.starts = np.array(quiet.starts[self._first : stop])
        self.ends = np.array(quiet.ends[self._first : stop])
        self._sends = wiring.sends(number, before, stop)
        self._sent_before = wiring.sends(number, 0, self._first)
        self._now = self._then = 0  # the step under way or next
        self._flights: list[_Flight] = []

    @property
    def runs_through(self) -> bool:
        """Whether all of it, and more than one window, was quiet steps."""
        return len(self.ends) > self.length + 1 and not np.isnan(self.ends).any()

    def stand_at(self, since: float, until: float) -> float:
        """Notes where it stands. Since when anything has been under way at the first instant."""
        self._now, self._then = (int(n) for n in np.searchsorted(self.ends, (since, until), side="right"))
        begun = since
        if self._now < len(self.starts):
            begun = min(begun, float(self.starts[self._now]))
        for stream in self._quiet.senders:
            rows = self._quiet.sent(stream)
            (left, left_then), (arrived, arrived_then) = (
                np.searchsorted(times, (since, until), side="right").tolist() for times in rows.T
            )
            numbers = self._sent_before[stream], self._sends[stream], left, left_then, arrived, arrived_then
            self._flights.append(_Flight(rows, *numbers))
            if arrived < left:
                begun = min(begun, float(rows[arrived, 0]))
        return begun

    def repeats(self, begun: float, seconds: float, tolerance: float) -> bool:
        """Whether all that was under way since then, up to the first instant, is again a window later."""
        shift = self.length
        if self._then - self._now != shift or self._now < 1 or self.ends[0] > begun:
            return False
        first = int(np.searchsorted(self.ends, begun, side="right"))
        part = slice(min(first, self._now - 1), self._now + 1)
        again = slice(part.start + shift, part.stop + shift)
        for times in (self.starts, self.ends):
            if not (np.abs(times[again] - times[part] - seconds) <= tolerance).all():
                return False
        return all(_again(flight, begun, seconds, tolerance) for flight in self._flights)

    def took(self) -> dict[str, float]:
        """The breakdown of the window."""
        return self._quiet.took(self._first + self._now, self._first + self._then)


def _again(flight: _Flight, begun: float, seconds: float, tolerance: float) -> bool:
    """Whether messages that were under way since then are again a window later, and no more of them wait."""
    rows, shift = flight.rows, flight.shift
    if flight.arrived < flight.before:  # what leaves next need not be what leaves a window later
        return False
    if flight.left_then - flight.left != shift or flight.arrived_then - flight.arrived != shift:
        return False
    first = int(np.searchsorted(rows[:, 1], begun, side="right"))
    part, again = rows[first : flight.left], rows[first + shift : flight.left + shift]
    return bool((np.abs(again - part - seconds) <= tolerance).all())
