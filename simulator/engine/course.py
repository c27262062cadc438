"""The steps of all devices in one row, each behind what it waits for: one loop can walk through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simulator.engine.tasks import Token
from simulator.engine.wiring import DeviceWiring

Places: TypeAlias = NDArray[np.intp]
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
class DeviceCourse:
    """What is known of one device's steps by number.

    Attributes:
        origin: the place before that of its first step.
        lasts: of each step, where its seconds are, counted from the first of the device.
        awaited: the message a step waits for; NOWHERE without one, and where there are ``several``.
        messages: by stream, the numbers of its messages in order, and the steps that send them.
        senders: these steps, of all its messages by number from ``message`` on.
    """

    origin: int
    lengths: Lengths
    lasts: Places
    awaited: Places
    several: frozenset[int]
    messages: dict[str, tuple[Places, Places]]
    message: int
    senders: Places


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Course:
    """All devices' legs, about in order of time.

    Attributes:
        where: by place, the leg that ends there.
        places: by leg.
        device_of: by place.
        tokens: by message, and ``numbers`` the other way round.
        routes: by message, its device's route; ``sources``: the place of the step that sends it;
            ``before``: the message before it on its stream.
        users: by message, the last places that wait for it: on its target, and on its source.
    """

    devices: tuple[DeviceCourse, ...]
    legs: tuple[Leg, ...]
    where: Places
    places: Places
    device_of: Places
    tokens: tuple[Token, ...]
    numbers: dict[Token, int]
    routes: Places
    sources: Places
    before: Places
    users: tuple[Places, Places]
