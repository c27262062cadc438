"""Finds the course through the steps of all devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf

import numpy as np

from simulator.engine.course import NOWHERE, Course, Leg, Lengths, Messages, Numbers, Passages, Places
from simulator.engine.tasks import Token
from simulator.engine.wiring import GATHER, DeviceWiring


@dataclass(frozen=True, eq=False)
class Wiring:
    """The steps of all devices, and the course through them, which is found when it is asked for."""

    devices: tuple[DeviceWiring, ...]
    _sends: dict[tuple[int, int, int], Counter[str]] = field(default_factory=dict)
    _works: dict[tuple[int, int, int], Counter[int]] = field(default_factory=dict)

    def sends(self, device: int, first: int, stop: int) -> Counter[str]:
        """How many messages these steps of a device send, by stream."""
        found = self._sends.get((device, first, stop))
        if found is None:
            wiring = self.devices[device]
            found = self._sends[device, first, stop] = Counter(
                wiring.routes[sent.route].stream for step in wiring.steps[first:stop] for sent in step.sends
            )
        return found

    def works(self, device: int, first: int, stop: int) -> Counter[int]:
        """How many of these steps of a device have each work."""
        found = self._works.get((device, first, stop))
        if found is None:
            steps = self.devices[device].steps[first:stop]
            found = self._works[device, first, stop] = Counter(step.work for step in steps)
        return found

    def __len__(self) -> int:
        """How many steps there are."""
        return sum(len(device.steps) for device in self.devices)

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
    return Course(
        lengths=tuple(device.lengths for device in devices),
        legs=legs,
        ends=np.array([leg.place for leg in legs], dtype=np.intp),
        places=_places(devices, legs),
        messages=found.by_number(),
        passages=tuple(each for number, device in enumerate(devices) for each in device.passages(number)),
    )


def _places(devices: Sequence[_Surveyed], legs: Sequence[Leg]) -> Places:
    sizes = [1 + len(device.legs) for device in devices]
    where = np.full(sum(sizes), NOWHERE, dtype=np.intp)
    for number, leg in enumerate(legs):
        where[leg.place] = number
        if leg.meets is not None:
            where[leg.meets[0]] = number
    return Places(
        origins=np.array([device.origin for device in devices]),
        devices=np.repeat(np.arange(len(sizes)), sizes),
        legs=where,
        lasts=np.concatenate([device.lasts for device in devices]),
        awaited=np.concatenate([device.awaited for device in devices]),
        messages=np.concatenate([*(device.sent for device in devices), [devices[-1].last]]),
    )


@dataclass(slots=True)
class _Messages:
    """All messages by number; number 0 is none. Who waits for each last, on its target and its source."""

    numbers: dict[Token, int] = field(default_factory=lambda: {None: 0})
    sources: list[int] = field(default_factory=lambda: [0])
    routes: list[int] = field(default_factory=lambda: [0])
    streams: list[int] = field(default_factory=lambda: [0])
    names: list[tuple[int, str]] = field(default_factory=list)
    before: list[int] = field(default_factory=lambda: [0])
    received: dict[int, int] = field(default_factory=dict)
    confirmed: dict[int, int] = field(default_factory=dict)

    def by_number(self) -> Messages:
        """As arrays."""
        return Messages(
            tokens=tuple(self.numbers),
            numbers=self.numbers,
            sources=np.array(self.sources),
            routes=np.array(self.routes),
            streams=np.array(self.streams),
            names=tuple(self.names),
            before=np.array(self.before),
            users=(self._array(self.received), self._array(self.confirmed)),
        )

    def _array(self, places: dict[int, int]) -> Numbers:
        found = np.full(len(self.sources), NOWHERE, dtype=np.intp)
        found[list(places)] = list(places.values())
        return found


@dataclass(slots=True)
class _Surveyed:
    """One device: its legs in order; those of exchanges lack the other side. Its messages: [first, last)."""

    wiring: DeviceWiring
    origin: int
    lengths: Lengths
    first: int
    last: int = 0
    sends: list[tuple[tuple[int, int, int], ...]] = field(default_factory=list)  # by step, as legs have them
    legs: list[Leg] = field(default_factory=list)

    def number(self, found: _Messages) -> None:
        """Gives its messages their numbers."""
        hops = self.lengths.begin + self.lengths.hops
        names = [route.stream for route in self.wiring.routes]
        streams = {name: len(found.names) + i for i, name in enumerate(sorted(set(names)))}
        found.names += [(self.wiring.device, name) for name in streams]
        latest = dict.fromkeys(streams, 0)
        for place, step in enumerate(self.wiring.steps, self.origin + 1):
            sends: tuple[tuple[int, int, int], ...] = ()
            for route, token, _ in step.sends:
                name, number = names[route], len(found.sources)
                sends += ((number, latest[name], hops + route),)
                found.before.append(latest[name])
                latest[name] = found.numbers[token] = number
                found.sources.append(place)
                found.routes.append(route)
                found.streams.append(streams[name])
            self.sends.append(sends)
        self.last = len(found.sources)

    def survey(self, found: _Messages) -> None:
        """Makes legs of its steps."""
        numbers, begin = found.numbers, self.lengths.begin
        sides = {side: self.lengths.exchanges + i for i, side in enumerate(self.wiring.exchanges)}
        for place, (step, sends) in enumerate(
            zip(self.wiring.steps, self.sends, strict=True), self.origin + 1
        ):
            waits: tuple[int, ...] = ()
            for token in step.waits:
                message = numbers[token]
                own = self.first <= message < self.last
                (found.confirmed if own else found.received)[message] = place
                waits += (message,)
            lasts = step.work
            if step.exchange is not None:
                lasts = sides[step.exchange.side(self.wiring.device)]
            elif lasts == GATHER:
                lasts = self.lengths.gather
            self.legs.append(Leg(place, begin + lasts, waits, sends, None))

    @property
    def lasts(self) -> Numbers:
        """By place, with one in front of the first step's."""
        return np.array([0, *(leg.lasts - self.lengths.begin for leg in self.legs)])

    @property
    def awaited(self) -> Numbers:
        """By place: the message it waits for."""
        several = (leg.waits[0] if len(leg.waits) == 1 else NOWHERE if leg.waits else 0 for leg in self.legs)
        return np.array([0, *several])

    @property
    def sent(self) -> Numbers:
        """By place: the first message that is sent there or later."""
        return (
            self.first + np.cumsum([0, 0, *(len(leg.sends) for leg in self.legs[:-1])])[: 1 + len(self.legs)]
        )

    def passages(self, number: int) -> Iterator[Passages]:
        """What may cross links."""
        lasts = self.lasts
        for at in range(self.lengths.gather, self.lengths.hops):
            yield Passages(number, at, self.origin + np.flatnonzero(lasts == at), is_message=False)
        routes = np.array([sent.route for step in self.wiring.steps for sent in step.sends], dtype=np.intp)
        for at in range(self.lengths.hops, self.lengths.end):
            messages = self.first + np.flatnonzero(routes == at - self.lengths.hops)
            yield Passages(number, at, messages, is_message=True)


def _in_a_row(devices: Sequence[_Surveyed], messages: int) -> list[Leg]:
    """Rounds in which every device that can runs one action and what precedes it."""
    legs: list[Leg] = []
    sent: list[float] = [0] + [inf] * (messages - 1)  # by message, the round
    nexts = [0] * len(devices)
    met: dict[Hashable, int] = {}  # devices that stand at an exchange
    this, moved = 0, True
    while moved:
        this, moved = this + 1, False
        for number, device in enumerate(devices):
            steps, own, at = device.wiring.steps, device.legs, nexts[number]
            while at < len(own):
                step, leg = steps[at], own[at]
                if leg.waits and max([sent[message] for message in leg.waits]) >= this:
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
