"""The steps of all devices in one row, each behind what it waits for: one loop can walk through them."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from simulator.engine.tasks import Token
from simulator.engine.wiring import DeviceWiring

Numbers: TypeAlias = NDArray[np.intp]
Times: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

NOWHERE = -1


class Leg(NamedTuple):
    """A step. The end of the step before it on its device is one ``place`` before its own.

    ``lasts`` is where its seconds are found, as :class:`Lengths` lays them out. ``sends``: messages, each
    with the one before it on its stream and where its seconds are; the first of a stream comes after message
    0, which nobody sends. ``meets``: the other side of a blocking exchange, its place and where its seconds
    are.
    """

    place: int
    lasts: int
    waits: tuple[int, ...]
    sends: tuple[tuple[int, int, int], ...]
    meets: tuple[int, int] | None


class Lengths(NamedTuple):
    """Where a device's seconds are found: of works, its gather, exchanges and hops, in a row.

    The first is ``begin`` among those of all devices; the others count from there.
    """

    begin: int
    gather: int
    exchanges: int
    hops: int
    end: int

    @classmethod
    def after(cls, begin: int, wiring: DeviceWiring) -> Lengths:
        """Those of a device behind those of the one before."""
        gather = len(wiring.works)
        hops = gather + 1 + len(wiring.exchanges)
        return cls(begin, gather, gather + 1, hops, hops + len(wiring.routes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """What is known by place: where each device's steps begin and end, one behind the other.

    Attributes:
        origins: by device, the place before that of its first step.
        devices: whose each is.
        legs: the leg that ends there.
        lasts: where the step's seconds are, counted from the first of its device.
        awaited: the message it waits for; 0 without one, NOWHERE where there are several.
        messages: the first message that is sent there or later; one more for what follows.
    """

    origins: Numbers
    devices: Numbers
    legs: Numbers
    lasts: Numbers
    awaited: Numbers
    messages: Numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Messages:
    """What is known of messages by number, device by device in the order of the steps that send them.

    Attributes:
        sources: the place of the step that sends each.
        routes: its device's route.
        streams: its stream, by position in ``names``: a device and the stream's name.
        before: the message before it on its stream.
        users: the last places that wait for it, on its target and on its source.
    """

    tokens: tuple[Token, ...]
    numbers: dict[Token, int]
    sources: Numbers
    routes: Numbers
    streams: Numbers
    names: tuple[tuple[int, str], ...]
    before: Numbers
    users: tuple[Numbers, Numbers]


class Passages(NamedTuple):
    """What a device's transfers of one kind are, by position in its lengths: messages, or steps by place."""

    device: int
    lasts: int
    numbers: Numbers
    is_message: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """All devices' legs, about in order of time, and their places.

    ``crossings``: what :mod:`simulator.engine.clashes` has made of it, by the links that are crossed.
    """

    lengths: Sequence[Lengths]
    legs: Sequence[Leg]
    ends: Numbers  # the place of each leg
    places: Places
    messages: Messages
    passages: Sequence[Passages]
    crossings: MutableMapping[Hashable, Any] = field(default_factory=lambda: LRUCache(maxsize=2))


class Section(NamedTuple):
    """Legs [first, last] of a course. By device: the places that lie in it, [begin, stop)."""

    first: int
    last: int
    begins: Numbers
    stops: Numbers

    def holds(self, numbers: Numbers, places: Places) -> Mask:
        """By place, whether it lies in it."""
        own = places.devices[numbers]
        return (numbers >= self.begins[own]) & (numbers < self.stops[own])


def spans(begins: Numbers, stops: Numbers) -> Numbers:
    """All numbers of several ranges, one behind the other."""
    sizes = stops - begins
    return np.repeat(begins - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
