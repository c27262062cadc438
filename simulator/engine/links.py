"""Links shared by whatever crosses them at the same time: a fluid model.

A transfer that meets no rival takes exactly the time it was given. Where transfers meet on a link they get
max-min fair rates, recomputed whenever one starts or ends among those that are joined through common links.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping
from typing import Any, TypeAlias

import simpy

from simulator.engine.tasks import Flow
from simulator.network.sharing import fair_rates

Retimed: TypeAlias = Callable[[], None]


class Transfer:
    """A transfer under way. ``left`` is in seconds at its own rate; ``speed`` 1 is that rate.

    ``end`` is when it ends unless another one starts or ends before; ``retimed`` is called when that has
    changed. Once ``shared``, because it has met a rival, a timer ends it; until then it leaves its links by
    itself. ``done`` fires at the end of a shared transfer that has no ``retimed``.
    """

    __slots__ = ("done", "end", "flow", "left", "retimed", "shared", "since", "speed", "timer")

    def __init__(self, flow: Flow, seconds: float, now: float, retimed: Retimed | None) -> None:
        self.flow = flow
        self.left = seconds
        self.speed = 1.0
        self.since = now
        self.end = now + seconds
        self.shared = False
        self.timer = 0  # counts reschedulings: an older timer that fires is ignored
        self.retimed = retimed
        self.done: simpy.Event | None = None

    def has_left(self, now: float) -> bool:
        """Whether it is over, but still named by its links."""
        return self.retimed is not None and not self.shared and self.end <= now


Capacities: TypeAlias = Mapping[Any, float]
"""Bytes/s by kind of link, the first part of its name; of a link unlike others of its kind, by its name."""


def capacity(capacities: Capacities, link: tuple[str, Hashable]) -> float:
    """Of one link."""
    own = capacities.get(link)
    return capacities[link[0]] if own is None else own


class SharedLinks:
    """All links of a replay."""

    def __init__(self, env: simpy.Environment, capacities: Capacities) -> None:
        self._env = env
        self._capacities = capacities
        self._on: dict[tuple[str, Hashable], list[Transfer]] = {}

    def cross(self, flow: Flow, seconds: float) -> Generator[simpy.Event, Any, None]:
        """Carries a transfer that takes ``seconds`` alone, for the process that yields from this."""
        transfer = self.enter(flow, seconds, self._env.now)
        yield self._env.timeout(seconds)  # no transfer is ever faster than alone
        if not transfer.shared:
            for link in flow.links:
                self._on[link].remove(transfer)
        elif transfer.done is not None and not transfer.done.triggered:
            yield transfer.done

    def enter(self, flow: Flow, seconds: float, now: float, retimed: Retimed | None = None) -> Transfer:
        """A transfer begins. ``now`` may lie ahead of the clock, but nothing on the links may happen before.

        With ``retimed`` nobody need end it; ``end`` may then change until it has come.
        """
        transfer = Transfer(flow, seconds, now, retimed)
        crowded = False
        for link in flow.links:
            users = self._on.get(link)
            if users is None:
                self._on[link] = [transfer]
                continue
            if users and users[0].has_left(now):
                users[:] = [user for user in users if not user.has_left(now)]
            crowded = crowded or bool(users)
            users.append(transfer)
        if crowded:
            self._share(transfer, now)
        return transfer

    def _schedule(self, transfer: Transfer, now: float) -> None:
        """(Re)starts the timer of a transfer's end."""
        transfer.timer += 1
        transfer.end = now + transfer.left / transfer.speed
        version = transfer.timer
        timeout = self._env.timeout(max(0.0, transfer.end - self._env.now))
        timeout.callbacks.append(lambda _: self._end(transfer, version))
        if transfer.retimed is not None:
            transfer.retimed()

    def _end(self, transfer: Transfer, version: int) -> None:
        if version != transfer.timer:
            return
        now = self._env.now
        rivals = self._joined(transfer, now)[1:]
        for link in transfer.flow.links:
            self._on[link].remove(transfer)
        if transfer.done is not None:
            transfer.done.succeed()
        seen: set[int] = set()
        for rival in rivals:
            if id(rival) not in seen:
                seen.update(id(t) for t in self._share(rival, now))

    def _joined(self, transfer: Transfer, now: float) -> list[Transfer]:
        """All transfers that share a link with this one, directly or through others."""
        found = {id(transfer)}
        queue = [transfer]
        for current in queue:
            for link in current.flow.links:
                for other in self._on[link]:
                    if id(other) not in found and not other.has_left(now):
                        found.add(id(other))
                        queue.append(other)
        return queue

    def _share(self, transfer: Transfer, now: float) -> list[Transfer]:
        """Gives a group of joined transfers their fair rates from now on."""
        group = self._joined(transfer, now)
        rates = fair_rates(
            {i: t.flow.links for i, t in enumerate(group)},
            {link: capacity(self._capacities, link) for t in group for link in t.flow.links},
            ceilings={i: t.flow.rate for i, t in enumerate(group)},
            crossings={i: t.flow.crossings for i, t in enumerate(group)},
        )
        for i, member in enumerate(group):
            member.left = max(0.0, member.left - (now - member.since) * member.speed)
            member.since = now
            speed = rates[i] / member.flow.rate
            if speed != member.speed or not member.shared:
                member.shared = True
                if member.retimed is None and member.done is None:
                    member.done = self._env.event()
                member.speed = speed
                self._schedule(member, now)
        return group
