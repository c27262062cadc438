"""A device's processors, shared by compute and the collectives that run beside it.

While a collective holds a share of the processors, work bound by them runs at rate 1 − share; work bound by
memory, and waiting inside a block, does not slow down. A block counts by the share of its time that is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import simpy

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
    """The processors of one rank. One compute task at a time runs on them.

    A task runs between :meth:`begin` and its own time after that; :meth:`catch_up` then does what collectives
    have kept it from doing, if :attr:`met` any.
    """

    __slots__ = ("_changed", "_env", "_left", "_since", "_task", "held", "listener", "met")

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self.held = 0.0  # share that collectives hold now
        self.listener: Callable[[], None] | None = None  # told when that has changed
        self._task: Task | None = None
        self._left = 0.0  # of the task, in seconds at its own rate
        self._since = 0.0
        self._changed: simpy.Event | None = None
        self.met = False  # whether a collective ran at any time of the task

    def hold(self, share: float) -> None:
        """A collective begins (or, with a negative share, ends)."""
        self._settle()
        self.held = max(0.0, self.held + share)
        self.met = True
        if self._changed is not None:
            self._changed.succeed()
            self._changed = None
        if self.listener is not None:
            self.listener()

    def begin(self, task: Task) -> None:
        """A compute task starts."""
        self._task, self._left, self._since, self.met = task, task.seconds, self._env.now, self.held > 0.0

    def catch_up(self) -> Generator[simpy.Event, Any, None]:
        """Runs what is left of the task after its own time."""
        self._settle()
        while self._left > REST * self._env.now:
            self._changed = self._env.event()
            yield self._env.timeout(self._left / self._rate) | self._changed
            self._changed = None
            self._settle()

    @property
    def _rate(self) -> float:
        held = self.held
        return 1.0 - held * bound_share(self._task) if held and self._task is not None else 1.0

    def _settle(self) -> None:
        """Brings the running task's remaining work up to now."""
        now = self._env.now
        self._left -= (now - self._since) * self._rate
        self._since = now
