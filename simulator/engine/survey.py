"""Finds the course through the steps of all devices."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from simulator.engine.course import NOWHERE, Course, DeviceCourse, Leg, Lengths, Places
from simulator.engine.tasks import Token
from simulator.engine.wiring import GATHER, DeviceWiring, Sent


@dataclass(frozen=True, eq=False)
class Wiring:
    """The steps of all devices, and the course through them, which is found when it is asked for."""

    devices: tuple[DeviceWiring, ...]

    @cached_property
    def course(self) -> Course:
        """Through all steps."""
        return course_of(self.devices)


def course_of(wiring: Sequence[DeviceWiring]) -> Course:
    """The course through all steps. Steps that wait in vain are left out."""
    found = _Messages()
    devices: list[_Surveyed] = []
    place = length = 0
    for own in wiring:
        devices.append(_Surveyed(own, place, Lengths.after(length, own), len(found.sources)))
        devices[-1].number(found)
        place += 1 + len(own.steps)
        length += devices[-1].lengths.end
    for device in devices:
        device.survey(found)
    legs = _in_a_row(devices, len(found.sources))
    places = np.array([leg.place for leg in legs], dtype=np.intp)
    where = np.full(place, NOWHERE, dtype=np.intp)
    where[places] = np.arange(len(legs))
    for number, leg in enumerate(legs):
        if leg.meets is not None:
            where[leg.meets[0]] = number
    sizes = [1 + len(own.steps) for own in wiring]
    return Course(
        devices=tuple(device.course() for device in devices),
        legs=tuple(legs),
        where=where,
        places=places,
        device_of=np.repeat(np.arange(len(sizes)), sizes),
        tokens=tuple(found.numbers),
        numbers=found.numbers,
        routes=np.array(found.routes),
        sources=np.array(found.sources),
        before=np.array(found.before),
        users=(_by_message(found.received, found), _by_message(found.confirmed, found)),
    )


def _by_message(places: dict[int, int], found: _Messages) -> Places:
    by_message = np.full(len(found.sources), NOWHERE, dtype=np.intp)
    by_message[list(places)] = list(places.values())
    return by_message


@dataclass(slots=True)
class _Messages:
    """All messages by number; number 0 is none. Who waits for each last, on its target and its source."""

    numbers: dict[Token, int] = field(default_factory=lambda: {None: 0})
    sources: list[int] = field(default_factory=lambda: [0])
    routes: list[int] = field(default_factory=lambda: [0])
    before: list[int] = field(default_factory=lambda: [0])
    received: dict[int, int] = field(default_factory=dict)
    confirmed: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Surveyed:
    """One device: its legs in order; those of exchanges lack the other side."""

    wiring: DeviceWiring
    origin: int
    lengths: Lengths
    message: int
    legs: list[Leg] = field(default_factory=list)
    _streams: dict[str, list[int]] = field(default_factory=dict)
    _senders: list[int] = field(default_factory=list)
    _several: list[int] = field(default_factory=list)

    def number(self, found: _Messages) -> None:
        """Gives its messages their numbers."""
        names = [route.stream for route in self.wiring.routes]
        self._streams = {name: [] for name in names}
        for number, step in enumerate(self.wiring.steps):
            for route, token, _ in step.sends:
                stream = self._streams[names[route]]
                message = found.numbers[token] = len(found.sources)
                found.before.append(stream[-1] if stream else 0)
                found.sources.append(self.origin + 1 + number)
                found.routes.append(route)
                stream.append(message)
                self._senders.append(number)

    def survey(self, found: _Messages) -> None:
        """Makes legs of its steps."""
        numbers, begin = found.numbers, self.lengths.begin
        last = self.message + len(self._senders)
        sides = {side: self.lengths.exchanges + i for i, side in enumerate(self.wiring.exchanges)}
        for place, step in enumerate(self.wiring.steps, self.origin + 1):
            waits = tuple([numbers[token] for token in step.waits]) if step.waits else ()
            for message in waits:
                own = self.message <= message < last
                (found.confirmed if own else found.received)[message] = place
            if len(waits) > 1:
                self._several.append(len(self.legs))
            lasts = step.work
            if step.exchange is not None:
                lasts = sides[step.exchange.side(self.wiring.device)]
            elif lasts == GATHER:
                lasts = self.lengths.gather
            sends = tuple([self._send(sent, found) for sent in step.sends]) if step.sends else ()
            self.legs.append(Leg(place, begin + lasts, waits, sends, None))

    def _send(self, sent: Sent, found: _Messages) -> tuple[int, int, int]:
        message = found.numbers[sent.token]
        return message, found.before[message], self.lengths.begin + self.lengths.hops + sent.route

    def course(self) -> DeviceCourse:
        """What is known by step."""
        senders = np.array(self._senders, dtype=np.intp)
        streams = {name: np.array(messages, dtype=np.intp) for name, messages in self._streams.items()}
        return DeviceCourse(
            origin=self.origin,
            lengths=self.lengths,
            lasts=np.array([leg.lasts for leg in self.legs], dtype=np.intp) - self.lengths.begin,
            awaited=np.array([leg.waits[0] if len(leg.waits) == 1 else NOWHERE for leg in self.legs]),
            several=frozenset(self._several),
            messages={name: (own, senders[own - self.message]) for name, own in streams.items()},
            message=self.message,
            senders=senders,
        )


def _in_a_row(devices: Sequence[_Surveyed], messages: int) -> list[Leg]:
    """Rounds in which every device that can runs one action and what precedes it."""
    legs: list[Leg] = []
    sent = [0] + [NOWHERE] * (messages - 1)  # by message, the round
    nexts = [0] * len(devices)
    met: dict[Hashable, int] = {}  # devices that stand at an exchange
    this, moved = 0, True
    while moved:
        this, moved = this + 1, False
        for number, device in enumerate(devices):
            steps, own, at = device.wiring.steps, device.legs, nexts[number]
            while at < len(own):
                step, leg = steps[at], own[at]
                if any(not 0 <= sent[message] < this for message in leg.waits):
                    break
                if step.exchange is not None:
                    other = met.pop(step.exchange.key, number)
                    if other == number:
                        met[step.exchange.key] = number
                        break
                    there = devices[other].legs[nexts[other]]
                    leg = leg._replace(meets=(there.place, there.lasts))
                    nexts[other] += 1
                for message, _, _ in leg.sends:
                    sent[message] = this
                legs.append(leg)
                at += 1
                moved = True
                if step.work >= 0:
                    break
            nexts[number] = at
    return legs
