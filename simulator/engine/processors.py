"""A device's processors, shared by compute and the collectives that run beside it.

While a collective holds a share of the processors, work bound by them runs at rate 1 − share; work bound by
memory, and waiting inside a block, does not slow down. A block counts by the share of its time that is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import simpy

from simulator.engine.agenda import Agenda, Ending
from simulator.engine.tasks import Profile, Task

BOUND = ("gemm", "grouped_gemm", "attention")
"""Categories limited by the processors."""


def bound_share(task: Task) -> float:
    """The share of a compute task's time that is limited by the processors."""
    if task.profile is None:
        return 1.0 if task.category in BOUND else 0.0
    return bound_part(task.profile, task.seconds)


def bound_part(profile: Profile, seconds: float) -> float:
    """The same of a block."""
    return sum(profile.get(category, 0.0) for category in BOUND) / seconds if seconds else 0.0


REST = 1e-12  # of the clock: work smaller than this is rounding


class Processors:
    """The processors of one rank. One compute task at a time runs on them."""

    __slots__ = ("_agenda", "_done", "_left", "_met", "_since", "_task", "held", "listener", "version")

    def __init__(self, agenda: Agenda) -> None:
        self.version = 0
        self._agenda = agenda
        self.held = 0.0  # share that collectives hold now
        self.listener: Callable[[], None] | None = None  # told when that has changed
        self._task: Task | None = None
        self._left = 0.0  # of the task, in seconds at its own rate
        self._since = 0.0
        self._done: Ending | None = None  # once its own time is over
        self._met = False  # whether a collective ran at any time of the task

    def hold(self, share: float) -> None:
        """A collective begins (or, with a negative share, ends)."""
        if self._task is not None:
            self._settle()
        self.held = max(0.0, self.held + share)
        self._met = True
        if self._done is not None:
            self._ends_at()
        if self.listener is not None:
            self.listener()

    def run(self, task: Task) -> Generator[simpy.Event, Any, bool]:
        """Runs a compute task, for the process that yields from this. Whether it met a collective.

        After its own time comes what collectives have kept it from doing.
        """
        env = self._agenda.env
        self._task, self._left, self._since, self._met = task, task.seconds, env.now, self.held > 0.0
        yield env.timeout(task.seconds)  # no task is faster than alone
        if self._met:
            self._settle()
            if self._left > REST * self._since:
                done = self._done = Ending(env)
                self._ends_at()
                yield done
        self._task = None
        return self._met

    def _ends_at(self) -> None:
        self.version += 1
        self._agenda.push(self._since + self._left / self._rate, self)

    def fire(self, at: float) -> None:
        """Implements :class:`simulator.engine.agenda.Owner`: the task has ended."""
        done, self._done = self._done, None
        assert done is not None
        done.happen(at)

    @property
    def _rate(self) -> float:
        held = self.held
        return 1.0 - held * bound_share(self._task) if held and self._task is not None else 1.0

    def _settle(self) -> None:
        """Brings the running task's remaining work up to now."""
        now = self._agenda.env.now
        self._left -= (now - self._since) * self._rate
        self._since = now
