"""Quiet steps run without a process each: what nothing but messages and neighbours can delay.

Most of a step is actions of known length that wait for messages. Their ends stand in the queue of
:mod:`simulator.engine.agenda`, beside the processes that run the rest: actions that data-parallel traffic
meets, that traffic, and the optimizer. Both see each other: messages share links with all other transfers,
collectives slow down the compute beside them, and a process that waits for a message is told when it comes.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from simulator.engine.agenda import Agenda, Ending
from simulator.engine.links import Link, SharedLinks
from simulator.engine.senders import Send
from simulator.engine.tasks import Task, Token


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

    def close(self) -> None:
        """All is over."""
        ...


@dataclass(slots=True)
class Lane:
    """Quiet devices, and what is known of messages.

    ``arrivals``: messages that are or have been under way; ``waiting``: devices, by message; ``meeting``:
    devices, by exchange; ``posts``: whose messages a token lets go.
    """

    agenda: Agenda
    links: SharedLinks | None
    devices: list[Device] = field(default_factory=list)
    posts: dict[Token, Device] = field(default_factory=dict)
    arrivals: dict[Token, Send] = field(default_factory=dict)
    waiting: dict[Token, list[Device]] = field(default_factory=dict)
    meeting: dict[Hashable, Any] = field(default_factory=dict)
    _watched: dict[Token, Ending] = field(default_factory=dict)

    def links_of(self, task: Task) -> Sequence[Link]:
        """The links a task crosses, none where they are not shared."""
        return self.links.named(task.flow.links) if self.links is not None and task.flow is not None else ()

    def signalled(self, token: Token) -> None:
        """A process has signalled a token."""
        device = self.posts.get(token)
        if device is not None:
            device.post(self.agenda.env.now, token)

    def deliver(self, send: Send) -> None:
        """A message is on its way, and its arrival known unless it meets others."""
        token = send.token
        self.arrivals[token] = send
        for device in self.waiting.pop(token, ()):
            device.resume()
        if token in self._watched:
            self._watched[token].happen(send.end, send)

    def retimed(self, send: Send) -> None:
        """A message arrives at another time than announced: nobody has gone on with it yet."""
        for device in self.devices:
            if device.counts_on(send.token):
                device.resume()
        watched = self._watched.get(send.token)
        if watched is not None and not watched.processed:
            self._watched[send.token] = watched.moved(send.end, send)

    def watch(self, token: Token) -> Ending:
        """Fires, with its record, when a message has arrived: for processes."""
        event = self._watched.get(token)
        if event is None:
            event = self._watched[token] = Ending(self.agenda.env)
            send = self.arrivals.get(token)
            if send is not None:
                event.happen(send.end, send)
        return event

    def resume_all(self) -> None:
        """Devices have been taken ahead."""
        self.waiting.clear()
        self.meeting.clear()
        for device in sorted(self.devices, key=lambda device: device.free):
            device.set_out_again()

    def close(self) -> None:
        """All is over: lets go of whatever refers to each other, so that counting references frees it."""
        for device in self.devices:
            device.close()
        self.devices.clear()
        self.posts.clear()
        self.arrivals.clear()
        self._watched.clear()

    def unmet(self) -> list[object]:
        """What devices wait for."""
        return [*self.waiting, *self.meeting]
