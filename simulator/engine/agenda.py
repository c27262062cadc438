"""What ends when, in one queue beside SimPy's own.

An event of SimPy happens when it was said to. Transfers that meet others, compute beside collectives and the
quiet steps of devices may turn out to end at another time: then their end is queued again, and the old entry
is void. Both queues are emptied together, in order of time, so that nothing happens before what precedes it.
Entries are taken up to SimPy's next event, with its clock where the last one left it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any, Protocol

import simpy


class Owner(Protocol):
    """Whoever has an entry in the queue. One of another ``version`` is void."""

    version: int

    def fire(self, at: float) -> None:
        """Its time has come."""
        ...


class Ending(simpy.Event):
    """What a process waits for until somebody knows when it happens."""

    def happen(self, at: float, value: Any = None) -> None:
        """At a time that may be ahead of the clock."""
        self._ok, self._value = True, value
        self.env.schedule(self, delay=max(0.0, at - self.env.now))

    def moved(self, at: float, value: Any = None) -> Ending:
        """Takes its place: it happens at another time than it was said to."""
        other = Ending(self.env)
        self.callbacks, other.callbacks = other.callbacks, self.callbacks
        other.happen(at, value)
        return other


class Shortcut(Protocol):
    """A quicker way than one end after the other."""

    def sets_out(self) -> int:
        """Takes the owners of ends ahead if it can. How many ends to take before it is asked again."""
        ...


@dataclass(slots=True)
class Agenda:
    """The queue. ``shortcut``: tried while no process has anything to come."""

    env: simpy.Environment
    shortcut: Shortcut | None = None
    _queue: list[tuple[float, int, Owner, int]] = field(default_factory=list)
    _pushed: int = 0

    def push(self, at: float, owner: Owner) -> None:
        """Queues an end."""
        self._pushed += 1
        heappush(self._queue, (at, self._pushed, owner, owner.version))

    def run(self) -> None:
        """Takes everything, until nothing is left in either queue."""
        queue, peek, step, shortcut = self._queue, self.env.peek, self.env.step, self.shortcut
        rests = 0
        while True:
            until = peek()
            if queue and queue[0][0] <= until:
                if until == inf and shortcut is not None:
                    if not rests:
                        rests = shortcut.sets_out()
                        continue
                    rests -= 1
                at, _number, owner, version = heappop(queue)
                if version == owner.version:
                    owner.fire(at)
            elif until < inf:
                step()
            else:
                return
