"""Links shared by whatever crosses them at the same time: a fluid model.

A transfer that meets no rival takes exactly the time it was given. Where transfers meet on a link they get
max-min fair rates, recomputed whenever one starts or ends among those that are joined through common links.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias

import simpy

from simulator.engine.agenda import Agenda, Ending
from simulator.engine.tasks import Flow, Task
from simulator.network.sharing import fair_rates

LinkName: TypeAlias = tuple[str, Hashable]
"""What it is, and whose."""


class Passage(Protocol):
    """Communication from ``start`` to ``end`` over links: while it is alone it ends by itself.

    Once it has met a rival it has a ``transfer``, and is told of every change of that one's end.
    """

    start: float
    end: float
    task: Task
    transfer: Transfer | None

    def retimed(self) -> None:
        """It ends at another time."""
        ...


class Transfer:
    """A passage that has met others. ``left`` is in seconds at its own rate; ``speed`` 1 is that rate.

    ``end`` is when it ends unless another one starts or ends before; ``retimed`` is called when that has
    changed. Then it is ``over``, and ``done`` happens where anybody waits for it.
    """

    __slots__ = (
        "_links",
        "done",
        "end",
        "flow",
        "left",
        "on",
        "over",
        "retimed",
        "since",
        "speed",
        "version",
    )

    def __init__(
        self,
        links: SharedLinks,
        flow: Flow,
        on: Sequence[Link],
        start: float,
        end: float,
        retimed: Callable[[], None],
    ) -> None:
        self._links = links
        self.flow = flow
        self.on = on
        self.left = end - start
        self.speed = 1.0
        self.since = start
        self.end = end
        self.over = False
        self.version = 0  # counts the times it has been queued
        self.retimed: Callable[[], None] | None = retimed  # until it is over
        self.done: Ending | None = None

    def fire(self, at: float) -> None:
        """Implements :class:`simulator.engine.agenda.Owner`."""
        self._links.end(self, at)


class Link:
    """What crosses one link: a ``passage`` that has it to itself until ``free``, or some that have met."""

    __slots__ = ("capacity", "free", "name", "passage", "users")

    def __init__(self, name: LinkName, capacity: float) -> None:
        self.name = name
        self.capacity = capacity
        self.free = 0.0
        self.passage: Passage | None = None
        self.users: list[Transfer] = []


class _Carried:
    """The passage of a process, which looks for itself whether it has met others."""

    __slots__ = ("end", "start", "task", "transfer")

    def __init__(self, task: Task, start: float) -> None:
        self.task = task
        self.start = start
        self.end = start + task.seconds
        self.transfer: Transfer | None = None

    def retimed(self) -> None:
        """Nobody has to be told."""


Capacities: TypeAlias = Mapping[Any, float]
"""Bytes/s by kind of link, the first part of its name; of a link unlike others of its kind, by its name."""


def capacity(capacities: Capacities, link: LinkName) -> float:
    """Of one link."""
    own = capacities.get(link)
    return capacities[link[0]] if own is None else own


class SharedLinks:
    """All links of a replay. ``met``: how many transfers there are that have met others."""

    def __init__(self, agenda: Agenda, capacities: Capacities) -> None:
        self.met = 0
        self._agenda = agenda
        self._capacities = capacities
        self._links: dict[LinkName, Link] = {}
        self._together: dict[tuple[LinkName, ...], list[Link]] = {}  # those that flows cross
        self._rates: dict[tuple[Flow, ...], tuple[float, ...]] = {}  # of flows that have met

    def named(self, names: tuple[LinkName, ...]) -> list[Link]:
        """The links of these names."""
        found = self._together.get(names)
        if found is None:
            for name in names:
                if name not in self._links:
                    self._links[name] = Link(name, capacity(self._capacities, name))
            found = self._together[names] = [self._links[name] for name in names]
        return found

    def close(self) -> None:
        """All is over: lets go of who passed last."""
        for link in self._links.values():
            link.passage = None

    def cross(self, links: Sequence[Link], task: Task) -> Generator[simpy.Event, Any, None]:
        """Carries a task's transfer, for the process that yields from this."""
        env = self._agenda.env
        carried = _Carried(task, env.now)
        self.pass_over(links, carried)
        yield env.timeout(task.seconds)  # no transfer is ever faster than alone
        transfer = carried.transfer
        if transfer is not None and not transfer.over:
            transfer.done = Ending(env)
            yield transfer.done

    def pass_over(self, links: Sequence[Link], passage: Passage) -> None:
        """A passage begins; nothing on its links may happen before, though the clock may be behind it."""
        start, end = passage.start, passage.end
        for link in links:
            if link.free > start or link.users:
                passage.transfer = self._meets(passage, links)
                passage.end = passage.transfer.end
                return
        for link in links:
            link.free, link.passage = end, passage

    def _meets(self, passage: Passage, links: Sequence[Link]) -> Transfer:
        """A passage begins that is not alone."""
        for link in links:
            if link.free > passage.start and link.passage is not None:
                link.passage.transfer = self._transfer(link.passage)
        transfer = self._transfer(passage)
        self._share(transfer, passage.start)
        return transfer

    def _transfer(self, passage: Passage) -> Transfer:
        """Turns a passage into a transfer on its links."""
        flow = passage.task.flow
        assert flow is not None
        links = self.named(flow.links)
        transfer = Transfer(self, flow, links, passage.start, passage.end, passage.retimed)
        for link in links:
            link.free = 0.0
            link.users.append(transfer)
        self.met += 1
        return transfer

    def _schedule(self, transfer: Transfer, now: float) -> None:
        """Queues a transfer's end (again)."""
        transfer.version += 1
        transfer.end = now + transfer.left / transfer.speed
        self._agenda.push(transfer.end, transfer)
        if transfer.retimed is not None:
            transfer.retimed()

    def end(self, transfer: Transfer, at: float) -> None:
        """A transfer that has met others is over."""
        self.met -= 1
        rivals = self._joined(transfer)[1:]
        transfer.over, transfer.retimed = True, None
        for link in transfer.on:
            link.users.remove(transfer)
        if transfer.done is not None:
            transfer.done.happen(at)
        seen: set[int] = set()
        for rival in rivals:
            if id(rival) not in seen:
                seen.update(id(t) for t in self._share(rival, at))

    def _joined(self, transfer: Transfer) -> list[Transfer]:
        """All transfers that share a link with this one, directly or through others."""
        found = {id(transfer)}
        queue = [transfer]
        for current in queue:
            for link in current.on:
                for other in link.users:
                    if id(other) not in found:
                        found.add(id(other))
                        queue.append(other)
        return queue

    def _share(self, transfer: Transfer, now: float) -> list[Transfer]:
        """Gives a group of joined transfers their fair rates from now on."""
        group = self._joined(transfer)
        for member, rate in zip(group, self._fair_rates(group), strict=True):
            member.left = max(0.0, member.left - (now - member.since) * member.speed)
            member.since = now
            speed = rate / member.flow.rate
            if speed != member.speed or not member.version:
                member.speed = speed
                self._schedule(member, now)
        return group

    def _fair_rates(self, group: Sequence[Transfer]) -> tuple[float, ...]:
        """Bytes/s of each. The same flows meet again and again."""
        flows = tuple([transfer.flow for transfer in group])
        rates = self._rates.get(flows)
        if rates is None:
            numbers: dict[Link, int] = {}
            demands = tuple(
                _Demand(
                    transfer.flow.rate,
                    transfer.flow.crossings,
                    tuple([numbers.setdefault(link, len(numbers)) for link in transfer.on]),
                )
                for transfer in group
            )
            rates = self._rates[flows] = _shares(demands, tuple([link.capacity for link in numbers]))
        return rates


class _Demand(NamedTuple):
    """A flow over links that are known by number."""

    rate: float
    crossings: tuple[float, ...]
    links: tuple[int, ...]


@lru_cache(maxsize=1 << 14)  # the same flows meet on the links of other devices, and of similar runs
def _shares(demands: tuple[_Demand, ...], capacities: tuple[float, ...]) -> tuple[float, ...]:
    """Bytes/s of each that cross links of these capacities."""
    rates = fair_rates(
        {i: demand.links for i, demand in enumerate(demands)},
        dict(enumerate(capacities)),
        ceilings={i: demand.rate for i, demand in enumerate(demands)},
        crossings={i: demand.crossings for i, demand in enumerate(demands)},
    )
    return tuple(rates.values())
