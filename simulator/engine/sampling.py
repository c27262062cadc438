"""Jitter drawn at random, for simulations of every rank and kernel.

Draws are normal around the time of the cost model, cut off near zero. A collective or message takes the same
time on all its members: its draw comes from its name, so that no order of events changes it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from statistics import NormalDist
from zlib import crc32

import numpy as np

from simulator.engine.data_traffic import PREPARE
from simulator.engine.jitter import KernelSpread
from simulator.engine.tasks import COMPUTE, Streams, Task

LEAST = 0.05  # of a task's time: none is drawn shorter
_STANDARD = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Relative standard deviations of kernels, of communication and of ranks' speeds, and the seed."""

    kernels: KernelSpread
    communication: float
    rank: float
    seed: int

    def streams(self, rank: int, streams: Streams) -> Streams:
        """The streams of one rank, each task with a time of its own."""
        random = np.random.default_rng((self.seed, rank))
        speed = 1.0 + self.rank * random.standard_normal()
        return {
            name: [self._drawn(task, name, speed, random) for task in tasks]
            for name, tasks in streams.items()
        }

    def _drawn(self, task: Task, stream: str, speed: float, random: np.random.Generator) -> Task:
        if not task.seconds:
            return task
        if task.meeting is not None or task.flow is not None or task.category.startswith("exposed"):
            named = task.signal if task.meeting is None else task.meeting.key
            factor = 1.0 + self.communication * self._by_name(named)
        elif stream in (COMPUTE, PREPARE):
            factor = speed + self.kernels.of(task.category) * random.standard_normal()
        else:
            return task
        return task._replace(seconds=task.seconds * max(LEAST, factor))

    def _by_name(self, name: Hashable) -> float:
        """A standard normal draw that belongs to a name."""
        place = crc32(repr((self.seed, name)).encode()) / 2.0**32
        return _STANDARD.inv_cdf(min(max(place, 1e-9), 1.0 - 1e-9))
