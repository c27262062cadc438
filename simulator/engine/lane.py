"""Quiet steps run without a process each: what nothing but messages and neighbours can delay.

Most of a step is actions of known length that wait for messages. Their ends are kept in one queue here and
taken in order of time, up to the next event of the SimPy environment, whose processes run the rest: actions
that data-parallel traffic meets, that traffic, and the optimizer. Both see each other: messages share links
with all other transfers, collectives slow down the compute beside them, and a process that waits for a
message is told when it comes. An end that turns out to lie elsewhere is queued again; the old entry is void.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any, Protocol

import simpy

from simulator.engine.links import Link, SharedLinks
from simulator.engine.senders import Send
from simulator.engine.tasks import Task, Token


class Owner(Protocol):
    """Whoever has an entry in the queue. One of another ``version`` is void."""

    version: int

    def fire(self, at: float) -> None:
        """Its time has come."""
        ...


class Device(Protocol):
    """A device in its quiet steps."""

    free: float  # when its last step ended

    def counts_on(self, token: Token) -> bool:
        """Whether it starts its current step at a time that a message's arrival has a part in."""
        ...

    def resume(self) -> None:
        """What it waits for has come, or will come at another time."""
        ...

    def post(self, at: float, token: Token) -> None:
        """Something that lets a message go has been done."""
        ...

    def set_out_again(self) -> None:
        """Begins its next step anew."""
        ...


class Ending(simpy.Event):
    """What a process waits for until somebody knows when it happens."""

    def happen(self, at: float) -> None:
        """At a time that may be ahead of the clock."""
        self._ok, self._value = True, None
        self.env.schedule(self, delay=max(0.0, at - self.env.now))


class Shortcut(Protocol):
    """A quicker way than one event after the other."""

    def sets_out(self) -> bool:
        """Takes the devices ahead if it can."""
        ...


@dataclass(slots=True)
class Lane:
    """The queue, and what is known of messages.

    ``arrivals``: messages that are or have been under way; ``waiting``: devices, by message; ``meeting``:
    devices, by exchange; ``posts``: whose messages a token lets go.
    """

    env: simpy.Environment
    links: SharedLinks | None
    devices: list[Device] = field(default_factory=list)
    posts: dict[Token, Device] = field(default_factory=dict)
    arrivals: dict[Token, Send] = field(default_factory=dict)
    waiting: dict[Token, list[Device]] = field(default_factory=dict)
    meeting: dict[Hashable, Any] = field(default_factory=dict)
    shortcut: Shortcut | None = None
    _watched: dict[Token, simpy.Event] = field(default_factory=dict)
    _queue: list[tuple[float, int, Owner, int]] = field(default_factory=list)
    _pushed: int = 0
    _wakes: float = inf  # when the alarm will ring; −∞ while the lane runs
    _alarm: simpy.Event | None = None

    def push(self, at: float, owner: Owner) -> None:
        """Queues an end."""
        self._pushed += 1
        heappush(self._queue, (at, self._pushed, owner, owner.version))
        if at < self._wakes:
            self._wake(at)

    def _wake(self, at: float) -> None:
        self._wakes = at
        self._alarm = self._at(at)
        self._alarm.callbacks.append(self._run)

    def _at(self, at: float) -> simpy.Event:
        """An event of the environment at a time that may be ahead of its clock."""
        return self.env.timeout(max(0.0, at - self.env.now))

    def _run(self, alarm: simpy.Event) -> None:
        """Takes everything up to the environment's next event."""
        if alarm is not self._alarm:
            return  # an earlier one has been set since
        self._wakes = -inf
        queue, peek, shortcut = self._queue, self.env.peek, self.shortcut
        while queue and queue[0][0] <= (until := peek()):
            if until == inf and shortcut is not None and shortcut.sets_out():
                continue
            at, _number, owner, version = heappop(queue)
            if version == owner.version:
                owner.fire(at)
        self._wakes = inf
        if queue:
            self._wake(queue[0][0])

    def links_of(self, task: Task) -> Sequence[Link]:
        """The links a task crosses, none where they are not shared."""
        return self.links.named(task.flow.links) if self.links is not None and task.flow is not None else ()

    def signalled(self, token: Token) -> None:
        """A process has signalled a token."""
        device = self.posts.get(token)
        if device is not None:
            device.post(self.env.now, token)

    def deliver(self, send: Send) -> None:
        """A message is on its way, and its arrival known unless it meets others."""
        token = send.token
        self.arrivals[token] = send
        for device in self.waiting.pop(token, ()):
            device.resume()
        if token in self._watched:
            self._announce(send)

    def retimed(self, send: Send) -> None:
        """A message arrives at another time than announced: nobody has gone on with it yet."""
        for device in self.devices:
            if device.counts_on(send.token):
                device.resume()
        if send.token in self._watched:
            self._announce(send)

    def watch(self, token: Token) -> simpy.Event:
        """Fires, with its record, when a message has arrived: for processes."""
        event = self._watched.get(token)
        if event is None:
            event = self._watched[token] = self.env.event()
            if token in self.arrivals:
                self._announce(self.arrivals[token])
        return event

    def _announce(self, send: Send) -> None:
        expected, event = send.end, self._watched[send.token]

        def arrive(_: simpy.Event) -> None:
            if send.end == expected and not event.triggered:
                event.succeed(send)

        self._at(expected).callbacks.append(arrive)

    def resume_all(self) -> None:
        """Devices have been taken ahead."""
        self.waiting.clear()
        self.meeting.clear()
        for device in sorted(self.devices, key=lambda device: device.free):
            device.set_out_again()

    def unmet(self) -> list[object]:
        """What devices wait for."""
        return [*self.waiting, *self.meeting]
