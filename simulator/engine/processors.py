"""A device's processors, shared by compute and the collectives that run beside it.

While a collective holds a share of the processors, work bound by them runs at rate 1 − share; work bound by
memory, and waiting inside a block, does not slow down. A block counts by the share of its time that is bound.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from simulator.engine.tasks import Task

BOUND = ("gemm", "grouped_gemm", "attention")
"""Categories limited by the processors."""


def bound_share(task: Task) -> float:
    """The share of a compute task's time that is limited by the processors."""
    if task.profile is None:
        return 1.0 if task.category in BOUND else 0.0
    return sum(task.profile.get(category, 0.0) for category in BOUND) / task.seconds


REST = 1e-12  # of the clock: work smaller than this is rounding


class Processors:
    """The processors of one rank. One compute task at a time runs on them."""

    __slots__ = ("_bound", "_changed", "_env", "_held", "_left", "_met", "_since")

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._held = 0.0  # share that collectives hold now
        self._bound = 0.0  # share of the compute task's time that needs processors
        self._left = 0.0  # of the compute task, in seconds at its own rate
        self._since = 0.0
        self._met = False  # whether a collective ran at any time of the compute task
        self._changed: simpy.Event | None = None

    def hold(self, share: float) -> None:
        """A collective begins (or, with a negative share, ends)."""
        self._settle()
        self._held = max(0.0, self._held + share)
        self._met = True
        if self._changed is not None:
            self._changed.succeed()
            self._changed = None

    def compute(self, task: Task) -> Generator[simpy.Event, Any, None]:
        """Runs a compute task, for the process that yields from this."""
        self._left, self._since, self._met = task.seconds, self._env.now, self._held > 0.0
        self._bound = bound_share(task)
        yield self._env.timeout(task.seconds)  # no task is faster than alone
        if not self._met:
            return
        self._settle()
        while self._left > REST * self._env.now:
            self._changed = self._env.event()
            yield self._env.timeout(self._left / self._rate) | self._changed
            self._changed = None
            self._settle()

    @property
    def _rate(self) -> float:
        return 1.0 - self._held * self._bound

    def _settle(self) -> None:
        """Brings the running task's remaining work up to now."""
        now = self._env.now
        self._left -= (now - self._since) * self._rate
        self._since = now
