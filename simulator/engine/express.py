"""Stretches of quiet steps walked through in one loop, instead of one event after the other.

While all devices are in their quiet steps and no process has anything to do, only messages can delay a step.
Where no two of them meet on a link, a step starts when the one before it and its messages have ended: sums
and maxima, worked out here for thousands of steps at once. Whether any have met is looked up afterwards. What
happened before the first that have, and before any device leaves its quiet steps, is then taken as it is;
from there on the queue of :mod:`simulator.engine.agenda` goes on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, islice, pairwise
from math import inf

import numpy as np

from simulator.engine.clashes import Clashes
from simulator.engine.course import NOWHERE, Course, Leg, Numbers, Section, spans
from simulator.engine.lane import Lane
from simulator.engine.quiet import QuietDevice
from simulator.engine.senders import Send
from simulator.engine.stretch import Walked, parts
from simulator.engine.tasks import LATER

LEAST = 24  # steps that every device has before it, and ...
TOGETHER = 400  # ... all of them: setting out takes as long as some hundred events
FARTHEST = 1 << 10  # legs at first
STRIDE = 2  # times as many as could be taken the next time: where messages meet, they do so again and again
PATIENCE = 6  # times as many events until the next attempt, where one was not worth it
WORTH = 4  # an event takes as long as so many steps of these, and more


class Express:
    """Takes all devices of a replay ahead where nothing can interfere."""

    def __init__(self, lane: Lane, devices: Sequence[QuietDevice], course: Callable[[], Course]) -> None:
        """``course``: asked for when it is needed."""
        self._lane = lane
        self._devices = devices
        self._ask = course
        self._trip: _Trip | None = None
        self._resting = self._shortest = max(LEAST, 2 * len(devices))
        self._least = max(LEAST, TOGETHER // len(devices))

    def sets_out(self) -> int:
        """Implements :class:`simulator.engine.agenda.Shortcut`."""
        links = self._lane.links
        if links is not None and links.met:
            return 1
        if not all(device.may_leap(self._least) for device in self._devices):
            return self._resting
        if self._trip is None:
            self._trip = _Trip(self._lane, self._devices, self._ask())
        moved = self._trip.go()
        if moved < TOGETHER:
            self._resting *= PATIENCE
        elif moved > WORTH * self._resting:
            self._resting = self._shortest
        return self._resting


class _Trip:
    """All stretches of a replay. The walk itself runs through lists, which are faster one by one."""

    def __init__(self, lane: Lane, devices: Sequence[QuietDevice], course: Course) -> None:
        self._lane = lane
        self._devices = devices
        self._course = course
        self._reach = max(FARTHEST, 64 * len(devices))
        self._seconds = [seconds for device in devices for seconds in device.lengths()]
        self._clashes = Clashes(course, devices, self._seconds)
        self._walked = Walked.nothing(course)
        self._starts, self._ends = ([inf] * len(course.places.devices) for _ in range(2))
        self._leaves, self._arrives = ([inf] * len(course.messages.tokens) for _ in range(2))
        self._arrives[0] = -inf
        self._learnt = 0  # how many of the messages that have been sent, and ...
        self._under_way: list[Send] = []  # ... which of them may meet others yet

    def go(self) -> int:
        """Walks as far as no device leaves its quiet steps, and takes what is certain: so many steps."""
        self._learn()
        section = self._section()
        self._walk(self._legs(section))
        self._note(section)
        until = min(self._ends[stop - 1] for stop in section.stops.tolist())
        clash = self._clashes.first(self._walked, section, until)
        moved = self._take(section, min(until, clash))
        self._reach = STRIDE * max(moved, LEAST * len(self._devices), TOGETHER)
        return moved

    def _learn(self) -> None:
        """Takes down messages that events have sent, and when those arrived that had been under way."""
        arrivals, walked = self._lane.arrivals, self._walked
        sent = [*self._under_way, *islice(arrivals.values(), self._learnt, None)]
        self._learnt = len(arrivals)
        now = max(device.free for device in self._devices)  # or later
        self._under_way = [send for send in sent if send.end > now]
        for send in sent:
            message = self._course.messages.numbers[send.token]
            self._leaves[message] = walked.leaves[message] = send.start
            self._arrives[message] = walked.arrives[message] = send.end
            walked.since[message] = send.since

    def _section(self) -> Section:
        """Up to the first step that is the last quiet one of its device."""
        places = self._course.places
        begins = places.origins + 1 + np.array([device.next for device in self._devices])
        ends = places.origins + np.array([device.stop for device in self._devices])
        for begin, device in zip(begins.tolist(), self._devices, strict=True):
            self._ends[begin - 1] = self._walked.ends[begin - 1] = device.free
        first = int(places.legs[begins].min())
        last = min(int(places.legs[ends].min()), first + self._reach)
        stops = [
            begin + int(np.searchsorted(places.legs[begin : end + 1], last, side="right"))
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ]
        return Section(first, last, begins, np.array(stops))

    def _legs(self, section: Section) -> Iterator[Leg]:
        part = slice(section.first, section.last + 1)
        return compress(
            self._course.legs[part], section.holds(self._course.ends[part], self._course.places).tolist()
        )

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

    def _note(self, section: Section) -> None:
        """Keeps what has been walked through as arrays."""
        walked, messages = self._walked, self._course.places.messages
        for begin, stop in zip(section.begins.tolist(), section.stops.tolist(), strict=True):
            walked.starts[begin:stop], walked.ends[begin:stop] = (
                self._starts[begin:stop],
                self._ends[begin:stop],
            )
            first, last = messages[begin], messages[stop]
            walked.leaves[first:last] = self._leaves[first:last]
            walked.arrives[first:last] = self._arrives[first:last]
        sent = spans(messages[section.begins], messages[section.stops])
        before = self._course.messages.before[sent]
        walked.since[sent] = walked.leaves[sent]
        follows = walked.leaves[sent] <= walked.arrives[before] * LATER
        for message, last in zip(sent[follows].tolist(), before[follows].tolist(), strict=True):
            walked.since[message] = walked.since[last]

    def _take(self, section: Section, until: float) -> int:
        """Brings devices, messages and the queue to a time before which all is certain."""
        begins: list[int] = section.begins.tolist()
        ends = zip(begins, section.stops.tolist(), strict=True)
        stops = [bisect_left(self._ends, until, begin, end) for begin, end in ends]
        if stops == begins:
            return 0
        reached = np.array(stops)
        gathers = [device.gather_category for device in self._devices]
        for part in parts(self._course, self._walked, section.begins, reached, gathers):
            self._devices[part.device].leap(part)
        messages = self._course.places.messages
        self._send(spans(messages[section.begins], messages[reached]), reached, until)
        self._lane.resume_all()
        return sum(stops) - sum(begins)

    def _send(self, sent: Numbers, reached: Numbers, until: float) -> None:
        """Takes down messages that have arrived; sends those that are still under way."""
        messages, walked, devices = self._course.messages, self._walked, self._course.places.devices
        there = walked.arrives[sent] < until
        arrived = sent[there]
        arrived = arrived[np.argsort(messages.streams[arrived], kind="stable")]
        streams = messages.streams[arrived]
        times: list[float] = (
            np.stack((walked.leaves[arrived], walked.arrives[arrived]), axis=1).ravel().tolist()
        )
        firsts = np.flatnonzero(np.diff(streams, prepend=-1)).tolist()
        for first, stop in pairwise([*firsts, len(arrived)]):
            device, name = messages.names[streams[first]]
            sender = self._devices[device].senders[name]
            sender.last = self._record(int(arrived[stop - 1]))
            if sender.kept is not None:
                sender.kept.append(times[2 * first : 2 * stop])
        used = [users[arrived] for users in messages.users]
        later = [(places != NOWHERE) & (places >= reached[devices[places]]) for places in used]
        for message in arrived[later[0] | later[1]].tolist():
            self._lane.arrivals[messages.tokens[message]] = self._record(message)
        under_way = sent[~there]
        for message in under_way[np.argsort(walked.leaves[under_way], kind="stable")].tolist():
            source = int(messages.sources[message])
            device = int(devices[source])
            at, route = self._ends[source], int(messages.routes[message])
            self._devices[device].dispatch(at, route, messages.tokens[message])

    def _record(self, message: int) -> Send:
        """Of a message that has arrived."""
        messages = self._course.messages
        device = self._devices[int(self._course.places.devices[messages.sources[message]])]
        return device.sent_already(
            int(messages.routes[message]),
            messages.tokens[message],
            self._leaves[message],
            self._arrives[message],
            float(self._walked.since[message]),
        )
