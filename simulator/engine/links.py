"""Links shared by whatever crosses them at the same time: a fluid model.

A transfer that meets no rival takes exactly the time it was given. Where transfers meet on a link they get
max-min fair rates, recomputed whenever one starts or ends among those that are joined through common links.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping
from typing import Any, TypeAlias

import simpy

from simulator.engine.tasks import Flow
from simulator.network.sharing import fair_rates


class Transfer:
    """A transfer under way. ``left`` is in seconds at its own rate; ``speed`` 1 is that rate.

    ``done`` is there once it has met a rival, and fires at its end; until then it ends when its own time is
    up.
    """

    __slots__ = ("done", "flow", "left", "since", "speed", "timer")

    def __init__(self, flow: Flow, seconds: float, now: float) -> None:
        self.flow = flow
        self.left = seconds
        self.speed = 1.0
        self.since = now
        self.done: simpy.Event | None = None
        self.timer = 0  # counts reschedulings: an older timer that fires is ignored


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
        transfer = Transfer(flow, seconds, self._env.now)
        crowded = False
        for link in flow.links:
            users = self._on.setdefault(link, [])
            crowded = crowded or bool(users)
            users.append(transfer)
        if crowded:
            self._share(transfer)
        yield self._env.timeout(seconds)  # no transfer is ever faster than alone
        if transfer.done is None:
            for link in flow.links:
                self._on[link].remove(transfer)
        elif not transfer.done.triggered:
            yield transfer.done

    def _schedule(self, transfer: Transfer) -> None:
        """(Re)starts the timer of a transfer's end."""
        transfer.timer += 1
        version = transfer.timer
        timeout = self._env.timeout(transfer.left / transfer.speed)
        timeout.callbacks.append(lambda _: self._end(transfer, version))

    def _end(self, transfer: Transfer, version: int) -> None:
        if version != transfer.timer or transfer.done is None:
            return
        rivals = self._joined(transfer)[1:]
        for link in transfer.flow.links:
            self._on[link].remove(transfer)
        transfer.done.succeed()
        seen: set[int] = set()
        for rival in rivals:
            if id(rival) not in seen:
                seen.update(id(t) for t in self._share(rival))

    def _joined(self, transfer: Transfer) -> list[Transfer]:
        """All transfers that share a link with this one, directly or through others."""
        found = {id(transfer)}
        queue = [transfer]
        for current in queue:
            for link in current.flow.links:
                for other in self._on[link]:
                    if id(other) not in found:
                        found.add(id(other))
                        queue.append(other)
        return queue

    def _share(self, transfer: Transfer) -> list[Transfer]:
        """Gives a group of joined transfers their fair rates from now on."""
        group = self._joined(transfer)
        now = self._env.now
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
            if speed != member.speed or member.done is None:
                member.done = member.done or self._env.event()
                member.speed = speed
                self._schedule(member)
        return group
