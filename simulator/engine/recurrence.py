"""A steady state found by the state of all devices that comes back.

What quiet devices do next depends on where they stand in their orders, on since when the step under way has
been running, on messages under way, and on nothing else. Where all that is the same at two instants but for a
shift of one window per device, all that follows is the same too, as long as the orders repeat.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from math import isnan
from operator import sub
from typing import NamedTuple

from simulator.engine.attribution import BUBBLE
from simulator.engine.costing import PP
from simulator.engine.course import Times
from simulator.engine.quiet import QuietDevice
from simulator.engine.quiet_program import QuietProgram
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


def recurrence(
    events: Replay, orders: Sequence[Repeating], wiring: Wiring, programs: Sequence[QuietProgram]
) -> Recurrence | None:
    """The window before the first device comes to the end of what repeats, if it is a repetition."""
    devices = [
        _Device(events.quiet[number], program, own, wiring, number)
        for number, (own, program) in enumerate(zip(orders, programs, strict=True))
    ]
    if not all(device.runs_through for device in devices):
        return None
    tolerance = TOLERANCE * events.end
    first = min(devices, key=lambda device: device.end)
    seconds = first.last_s
    until = first.end - tolerance  # just before, so that what ends at that instant is under way
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
    """A device at two instants: between them it runs the steps [now, then)."""

    def __init__(
        self, quiet: QuietDevice, program: QuietProgram, order: Repeating, wiring: Wiring, number: int
    ) -> None:
        begins = wiring.devices[number].begins
        before = begins[order.stop - order.length]
        self._quiet = quiet
        self._program = program
        self._steps = wiring.devices[number].steps
        self._first, self._stop = begins[order.begin], begins[order.stop]
        self._length = self._stop - before
        self._works = wiring.works(number, before, self._stop)
        self._sends = wiring.sends(number, before, self._stop)
        self._sent_before = wiring.sends(number, 0, self._first)
        self._now = self._then = self._first  # the step under way or next
        self._flights: list[_Flight] = []

    @property
    def runs_through(self) -> bool:
        """Whether all of what repeats, and more than one window, was quiet steps."""
        several = self._stop - self._first > self._length + 1
        return several and not isnan(sum(self._quiet.ends[self._first : self._stop]))

    @property
    def end(self) -> float:
        """Of what repeats."""
        return self._quiet.ends[self._stop - 1]

    @property
    def last_s(self) -> float:
        """Seconds of its last window."""
        return self.end - self._quiet.ends[self._stop - 1 - self._length]

    def stand_at(self, since: float, until: float) -> float:
        """Notes where it stands. Since when anything has been under way at the first instant."""
        ends, starts, begun = self._quiet.ends, self._quiet.starts, since
        self._now, self._then = (bisect_right(ends, time, self._first, self._stop) for time in (since, until))
        if self._now < self._stop:
            begun = min(begun, starts[self._now])
        for stream in self._quiet.senders:
            rows = self._quiet.sent(stream)
            (left, left_then), (arrived, arrived_then) = (
                times.searchsorted((since, until), side="right").tolist() for times in rows.T
            )
            numbers = self._sent_before[stream], self._sends[stream], left, left_then, arrived, arrived_then
            self._flights.append(_Flight(rows, *numbers))
            if arrived < left:
                begun = min(begun, float(rows[arrived, 0]))
        return begun

    def repeats(self, begun: float, seconds: float, tolerance: float) -> bool:
        """Whether all that was under way since then, up to the first instant, is again a window later."""
        ends, starts, shift = self._quiet.ends, self._quiet.starts, self._length
        if self._then - self._now != shift or self._now == self._first or ends[self._first] > begun:
            return False
        first = bisect_right(ends, begun, self._first, self._stop)
        again = all(
            abs(times[step + shift] - times[step] - seconds) <= tolerance
            for times in (starts, ends)
            for step in range(min(first, self._now - 1), self._now + 1)
        )
        return again and all(_again(flight, begun, seconds, tolerance) for flight in self._flights)

    def took(self) -> dict[str, float]:
        """The breakdown of the window."""
        window = slice(self._now, self._then)
        starts, ends = self._quiet.starts[window], self._quiet.ends[window]
        waited = sum(self._quiet.waited[window])
        idle = sum(map(sub, starts, self._quiet.ends[self._now - 1 : self._then - 1]))
        total = defaultdict(float, {PP: waited, BUBBLE: idle - waited})
        for work, count in self._works.items():
            if work >= 0:
                for category, seconds in self._program.profiles[work].items():
                    total[category] += count * seconds
                continue
            lasted = zip(self._steps[window], starts, ends, strict=True)
            total[self._program.category(work)] += sum(b - a for step, a, b in lasted if step.work == work)
        return {category: seconds for category, seconds in total.items() if seconds}


def _again(flight: _Flight, begun: float, seconds: float, tolerance: float) -> bool:
    """Whether messages that were under way since then are again a window later, and no more of them wait."""
    rows, shift = flight.rows, flight.shift
    if flight.arrived < flight.before:  # what leaves next need not be what leaves a window later
        return False
    if flight.left_then - flight.left != shift or flight.arrived_then - flight.arrived != shift:
        return False
    first = int(rows[:, 1].searchsorted(begun, side="right"))
    return all(
        abs(after - before - seconds) <= tolerance
        for before, after in zip(
            rows[first : flight.left].ravel().tolist(),
            rows[first + shift : flight.left + shift].ravel().tolist(),
            strict=True,
        )
    )
