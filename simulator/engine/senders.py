"""Messages of quiet steps: each of a device's streams sends one after the other, over shared links."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from simulator.engine.agenda import Agenda
from simulator.engine.course import Times
from simulator.engine.links import Link, SharedLinks, Transfer
from simulator.engine.tasks import LATER, Record, Task, Token


class Hop(NamedTuple):
    """A message between two devices, and the links it crosses."""

    task: Task
    links: Sequence[Link]


class Send(Record):
    """A message on its way: a passage over its links. ``end`` is when it arrives unless it meets others."""

    __slots__ = ("sender", "since", "token", "transfer")

    def __init__(self, sender: Sender, task: Task, token: Token, start: float) -> None:
        self.rank = sender.rank
        self.stream = sender.name
        self.task = task
        self.start = start
        self.end = start + task.seconds
        self.cause = None
        self.since = start  # when the first of those left that it has followed without a pause
        self.sender = sender
        self.token = token
        self.transfer: Transfer | None = None

    def retimed(self) -> None:
        """Its transfer ends at another time than it would have."""
        if self.transfer is not None:
            self.end = self.transfer.end
            self.sender.retimed(self)


class Post(Protocol):
    """Who waits for messages."""

    agenda: Agenda
    links: SharedLinks | None

    def deliver(self, send: Send) -> None:
        """A message is on its way."""
        ...

    def retimed(self, send: Send) -> None:
        """It arrives at another time than announced."""
        ...


class Sender:
    """One stream of messages of a device. Those sent are ``kept`` where that is asked, one by one or
    as when they left and arrived, in a row."""

    __slots__ = ("_post", "_queue", "kept", "last", "name", "rank", "version")

    def __init__(self, post: Post, rank: int, name: str, *, keeps: bool) -> None:
        self.rank = rank
        self.name = name
        self.version = 0
        self.last: Send | None = None
        self.kept: list[Send | list[float]] | None = [] if keeps else None
        self._post = post
        self._queue: deque[tuple[Hop, Token]] = deque()

    @property
    def waits(self) -> bool:
        """Whether messages wait for those before them."""
        return bool(self._queue)

    @property
    def times(self) -> Times:
        """When each message that is kept left and arrived: rows of two."""
        times: list[float] = []
        for each in self.kept or ():
            times += (each.start, each.end) if isinstance(each, Send) else each
        return np.array(times).reshape(-1, 2)

    def send(self, at: float, hop: Hop, token: Token) -> None:
        """Sends a message, after those before it."""
        if self._queue or (self.last is not None and self.last.end > at):
            self._queue.append((hop, token))
            if len(self._queue) == 1:
                self._await_last()
        else:
            self._start(at, hop, token)

    def fire(self, at: float) -> None:
        """The message before has arrived: the next one goes."""
        self._start(at, *self._queue.popleft())
        if self._queue:
            self._await_last()

    def _await_last(self) -> None:
        assert self.last is not None
        self.version += 1
        self._post.agenda.push(self.last.end, self)

    def _start(self, at: float, hop: Hop, token: Token) -> None:
        send = Send(self, hop.task, token, at)
        last = self.last
        if last is not None and at <= last.end * LATER:
            send.cause = last
            send.since = last.since
        self.last = send
        if self.kept is not None:
            self.kept.append(send)
        if hop.links and self._post.links is not None:
            self._post.links.pass_over(hop.links, send)
        self._post.deliver(send)

    def retimed(self, send: Send) -> None:
        """A message of this stream arrives at another time."""
        if self._queue and send is self.last:
            self._await_last()
        self._post.retimed(send)
