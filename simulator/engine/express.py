"""Stretches of quiet steps walked through in one loop, instead of one event after the other.

While all devices are in their quiet steps and no process has anything to do, only messages can delay a step.
Where no two of them meet on a link, a step starts when the one before it and its messages have ended: sums
and maxima, worked out here for thousands of steps at once. Whether any have met is looked up afterwards. What
happened before the first that have, and before any device leaves its quiet steps, is then taken as it is;
from there on the queue of :mod:`simulator.engine.lane` goes on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, islice
from math import inf

import numpy as np

from simulator.engine.clashes import Clashes, Walked, Window
from simulator.engine.course import NOWHERE, Course, Leg, Places
from simulator.engine.lane import Lane
from simulator.engine.quiet import QuietDevice
from simulator.engine.senders import Send
from simulator.engine.stretch import Stretch
from simulator.engine.tasks import LATER

LEAST = 24  # steps that every device has before it; setting out takes as long as some of them
FARTHEST = 1 << 13  # legs at first
STRIDE = 2  # times more the next time, where no messages have met; else as much fewer
WORTH = 4  # an event takes as long as so many steps of these, and more


class Express:
    """Takes all devices of a replay ahead where nothing can interfere."""

    def __init__(self, lane: Lane, devices: Sequence[QuietDevice], course: Callable[[], Course]) -> None:
        """``course``: asked for when it is needed."""
        self._lane = lane
        self._devices = devices
        self._ask = course
        self._trip: _Trip | None = None
        self._rests = 0  # events to let pass before the next attempt
        self._resting = self._shortest = 2 * len(devices)

    def sets_out(self) -> bool:
        """Takes the devices ahead if it can: asked before events while no process has any to come."""
        self._rests -= 1
        if self._rests >= 0:
            return False
        self._rests = self._resting
        if not all(device.may_leap(LEAST) for device in self._devices):
            return False
        if self._trip is None:
            self._trip = _Trip(self._lane, self._devices, self._ask())
        moved = self._trip.go()
        self._resting = self._shortest if moved > WORTH * self._resting else 2 * self._resting
        return moved > 0


class _Trip:
    """All stretches of a replay. By place: starts and ends; by message: when it leaves and arrives."""

    def __init__(self, lane: Lane, devices: Sequence[QuietDevice], course: Course) -> None:
        places, messages = len(course.where), len(course.tokens)
        self._lane = lane
        self._devices = devices
        self._course = course
        self._clashes = Clashes(course, devices)
        self._reach = FARTHEST
        self._seconds = [seconds for device in devices for seconds in device.lengths()]
        self._starts, self._ends = [inf] * places, [inf] * places
        self._leaves, self._arrives = [-inf] * messages, [-inf] + [inf] * (messages - 1)
        self._walked = Walked(
            *(np.array(each) for each in (self._starts, self._ends, self._leaves, self._arrives))
        )
        self._since = np.full(messages, inf)  # of messages on a stream in a row: when the first of them left
        self._learnt = 0

    def go(self) -> int:
        """Walks as far as no device leaves its quiet steps, and takes what is certain: so many steps."""
        self._learn()
        window = self._window()
        self._walk(self._legs(window))
        self._note(window)
        until = min(self._ends[stop - 1] for stop in window.stops.tolist())
        clash = self._clashes.first(self._walked, window, until)
        self._reach = max(FARTHEST, (window.last - window.first) * STRIDE)
        if clash < until:
            self._reach = max(1, (window.last - window.first) // STRIDE)
        return self._take(window, min(until, clash))

    def _note(self, window: Window) -> None:
        """Keeps the times of what has been walked through."""
        course, walked = self._course, self._walked
        for own, begin, stop in zip(
            course.devices, window.begins.tolist(), window.stops.tolist(), strict=True
        ):
            places = slice(begin, stop)
            walked.starts[places], walked.ends[places] = self._starts[places], self._ends[places]
            first, last = np.searchsorted(own.senders, (begin - own.origin - 1, stop - own.origin - 1))
            messages = slice(own.message + int(first), own.message + int(last))
            walked.leaves[messages], walked.arrives[messages] = (
                self._leaves[messages],
                self._arrives[messages],
            )
            self._since_when(messages)

    def _learn(self) -> None:
        """Takes down messages that events have sent."""
        arrivals = self._lane.arrivals
        sent = [*islice(arrivals.values(), self._learnt, None)]
        latest = (sender.last for device in self._devices for sender in device.senders.values())
        self._learnt = len(arrivals)
        for send in (*sent, *filter(None, latest)):
            message = self._course.numbers[send.token]
            self._leaves[message], self._arrives[message] = send.start, send.end
            self._walked.leaves[message], self._walked.arrives[message] = send.start, send.end
            self._since[message] = send.since

    def _window(self) -> Window:
        """Up to the first step that is the last quiet one of its device."""
        devices, where = self._course.devices, self._course.where
        begins = [own.origin + 1 + device.next for own, device in zip(devices, self._devices, strict=True)]
        ends = [own.origin + device.stop for own, device in zip(devices, self._devices, strict=True)]
        for begin, device in zip(begins, self._devices, strict=True):
            self._ends[begin - 1] = self._walked.ends[begin - 1] = device.free
        first = int(where[begins].min())
        last = min(int(where[ends].min()), first + self._reach)
        stops = [
            begin + int(np.searchsorted(where[begin : end + 1], last, side="right"))
            for begin, end in zip(begins, ends, strict=True)
        ]
        return Window(first, last, np.array(begins), np.array(stops))

    def _legs(self, window: Window) -> Iterator[Leg]:
        part = slice(window.first, window.last + 1)
        ahead = window.holds(self._course.places[part], self._course)
        return compress(self._course.legs[part], ahead.tolist())

    def _walk(self, legs: Iterable[Leg]) -> None:
        seconds, starts, ends = self._seconds, self._starts, self._ends
        leaves, arrives = self._leaves, self._arrives
        for place, lasts, waits, sends, meets in legs:
            at = ends[place - 1]
            for message in waits:
                if arrives[message] > at:  # noqa: PLR1730  max() takes three times as long
                    at = arrives[message]
            took = seconds[lasts]
            if meets is not None:
                other, theirs = meets
                at, took = max(at, ends[other - 1]), max(took, seconds[theirs])
                starts[other] = at
                ends[other] = at + took
            starts[place] = at
            ends[place] = at = at + took
            for message, before, hop in sends:
                leave = arrives[before] if arrives[before] > at else at
                leaves[message] = leave
                arrives[message] = leave + seconds[hop]

    def _since_when(self, messages: slice) -> None:
        """Of messages that wait for the one before them: when the first in a row has left."""
        walked, before, since = self._walked, self._course.before, self._since
        since[messages] = walked.leaves[messages]
        follows = walked.leaves[messages] <= walked.arrives[before[messages]] * LATER
        for message in (messages.start + np.flatnonzero(follows)).tolist():
            since[message] = since[before[message]]

    def _take(self, window: Window, until: float) -> int:
        """Brings devices, messages and the queue to a time before which all is certain."""
        begins = window.begins.tolist()
        spans = zip(begins, window.stops.tolist(), strict=True)
        reached = [bisect_left(self._ends, until, *span) for span in spans]
        if reached == begins:
            return 0
        flying: list[tuple[float, int, int]] = []
        for number, (device, begin, stop) in enumerate(zip(self._devices, begins, reached, strict=True)):
            if begin < stop:
                device.leap(self._stretch(number, begin, stop))
                flying += self._sent(number, begin, stop, np.array(reached), until)
        for _, message, number in sorted(flying):
            self._dispatch(message, number)
        self._lane.resume_all()
        return int(sum(reached) - sum(begins))

    def _stretch(self, number: int, begin: int, stop: int) -> Stretch:
        own = self._course.devices[number]
        first, last = begin - own.origin - 1, stop - own.origin - 1
        walked = self._walked
        begun = walked.ends[begin - 1 : stop - 1]
        messages = own.awaited[first:last].copy()
        for step in own.several:
            if first <= step < last:
                messages[step - first] = self._latest(own.origin + 1 + step)
        late = walked.arrives[messages] > begun * LATER
        return Stretch(
            course=own,
            first=first,
            stop=last,
            begun=begun,
            starts=walked.starts[begin:stop],
            ends=walked.ends[begin:stop],
            awaited=np.where((messages > 0) & late, self._since[messages], inf),
        )

    def _latest(self, place: int) -> int:
        """The message that a step waits for last."""
        at, found = self._ends[place - 1], NOWHERE
        for message in self._course.legs[self._course.where[place]].waits:
            if self._arrives[message] > at * LATER:
                found = message
            at = max(at, self._arrives[message])
        return found

    def _sent(
        self, number: int, begin: int, stop: int, reached: Places, until: float
    ) -> Iterator[tuple[float, int, int]]:
        """Takes down messages that have arrived; those still under way, by when they leave."""
        course, device = self._course, self._devices[number]
        walked, origin = self._walked, course.devices[number].origin + 1
        for stream, (messages, steps) in course.devices[number].messages.items():
            sent = messages[slice(*np.searchsorted(steps, (begin - origin, stop - origin)))]
            arrived = sent[: np.searchsorted(walked.arrives[sent], until)]
            if len(arrived):
                sender = device.senders[stream]
                sender.last = self._send(int(arrived[-1]), device)
                if sender.kept is not None:
                    sender.kept.append(np.column_stack((walked.leaves[arrived], walked.arrives[arrived])))
            used = [users[arrived] for users in course.users]
            later = [(places != NOWHERE) & (places >= reached[course.device_of[places]]) for places in used]
            for message in arrived[later[0] | later[1]].tolist():
                self._lane.arrivals[course.tokens[message]] = self._send(message, device)
            for message in sent[len(arrived) :].tolist():
                yield self._leaves[message], message, number

    def _send(self, message: int, device: QuietDevice) -> Send:
        """The record of a message that has arrived."""
        return device.sent_already(
            int(self._course.routes[message]),
            self._course.tokens[message],
            self._leaves[message],
            self._arrives[message],
            float(self._since[message]),
        )

    def _dispatch(self, message: int, number: int) -> None:
        """Sends a message that is still under way."""
        course = self._course
        at = self._ends[course.sources[message]]
        self._devices[number].dispatch(at, int(course.routes[message]), course.tokens[message])
