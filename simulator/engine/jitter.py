"""Jitter without drawing it: what the members of a group wait, on average, for the slowest of them.

Where n ranks meet that have worked since they met last, each for the same mean time with standard deviation
s, the collective starts E[n]·s later than a rank on its own would be ready; E[n] is the mean of the largest
of n standard normal draws. Inside a block that delay stands before every collective. Past it the group is as
spread out as the largest of n draws; :mod:`simulator.engine.stragglers` takes what a step leaves of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import hypot, sqrt
from typing import NamedTuple

from simulator.engine.costing import OperatorCosts
from simulator.engine.extremes import largest
from simulator.engine.replay import Replay
from simulator.engine.tasks import COMPUTE
from simulator.graph.operators import Collective, SendRecv
from simulator.partition.segment import HOST, Segment, Step


class Waits(NamedTuple):
    """What jitter does to a segment.

    ``delays``: by position of a collective, how much later it starts; beyond the last step, how much later
    the segment ends. ``variance``: of the segment's length, from one group to the next, s².
    """

    delays: Mapping[int, float]
    variance: float


class _Apart(NamedTuple):
    """What ranks have computed since they met: how long it takes, and its variance."""

    variance: float = 0.0
    seconds: float = 0.0

    def after(self, other: _Apart) -> _Apart:
        """Without what came before; all of it where ranks have met in between."""
        if other.seconds > self.seconds:
            return self
        return _Apart(self.variance - other.variance, self.seconds - other.seconds)


NO_WAITS = Waits({}, 0.0)
GEMMS = ("gemm", "grouped_gemm")


class KernelSpread(NamedTuple):
    """Relative standard deviations by class of kernel."""

    gemm: float = 0.0
    attention: float = 0.0
    memory: float = 0.0  # all others

    def of(self, category: str) -> float:
        """Of the kernels of a category."""
        if category in GEMMS:
            return self.gemm
        return self.attention if category == "attention" else self.memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Relative standard deviations and how many ranks meet on an axis.

    ``groups`` of data parallelism run beside each other on one device, one per rank of a cell.
    """

    kernels: KernelSpread
    communication: float
    rank: float  # for a whole step
    ranks: Mapping[str, int]
    groups: int

    def slowest_group_s(self, seconds: float) -> float:
        """How much later the last of them ends a collective that takes so long on average."""
        return largest(self.groups).mean * self.communication * seconds

    def waits(self, segment: Segment, costs: OperatorCosts, exposed: Collection[int]) -> Waits:
        """The delays of a segment.

        ``exposed``: positions of communication that compute waits for; it is what brings ranks together.
        """
        delays: dict[int, float] = {}
        settled = 0.0  # variance of what ranks had done when they met
        apart = _Apart()
        since: list[_Apart] = []  # by position: at its end
        covered: list[int] = []  # by position: the last compute that all ranks have done at its end
        for index, step in enumerate(segment.steps):
            cost, own = costs.cost(step.op), -1
            seconds = cost.seconds
            if isinstance(step.op, Collective | SendRecv):
                own = max((w for w in step.waits if segment.steps[w].stream == COMPUTE), default=-1)
                met = max((covered[w] for w in step.waits if segment.steps[w].stream != COMPUTE), default=-1)
                if own > met and seconds:
                    work = since[own].after(since[met]) if met >= 0 else since[own]
                    delays[index] = largest(self._met(step)).mean * self._beyond_ranks(work)
                own = max(own, met)
                settled += (self.communication * seconds) ** 2 if index in exposed else 0.0
            elif step.stream == COMPUTE:
                before = [segment.steps[wait] for wait in step.waits if wait in exposed]
                if before:
                    settled += largest(max(map(self._met, before))).deviation ** 2 * apart.variance
                    apart = _Apart()
                own_s = self.kernels.of(cost.category) * seconds
                apart = _Apart(apart.variance + own_s**2, apart.seconds + seconds)
            since.append(apart)
            covered.append(own)
        if _last_compute(segment) > max(covered, default=-1):  # what is left, the next segment waits for
            met = max(map(self._met, segment.steps), default=1)
            delays[len(segment.steps)] = largest(met).mean * self._beyond_ranks(apart)
        return Waits({at: delay for at, delay in delays.items() if delay}, settled + apart.variance)

    def _beyond_ranks(self, work: _Apart) -> float:
        """Deviation of work, less what ranks differ by for the whole step: the slowest has that already."""
        of_ranks = self.rank * work.seconds
        return hypot(sqrt(work.variance), of_ranks) - of_ranks

    def _met(self, step: Step) -> int:
        """How many ranks wait for each other: neighbours, or a group."""
        if isinstance(step.op, SendRecv):
            return min(2, self.ranks.get(step.op.axis, 1))
        return self.ranks.get(step.op.axis, 1) if isinstance(step.op, Collective) else 1


def _last_compute(segment: Segment) -> int:
    return max((i for i, step in enumerate(segment.steps) if step.stream == COMPUTE), default=-1)


def exposed_positions(run: Replay) -> set[int]:
    """Positions of a replayed segment's communication that a compute step waited for."""
    found: set[int] = set()
    clock = 0.0
    for record in run.stream(0, COMPUTE):
        cause = record.cause
        while record.start > clock and cause is not None and cause.stream not in (COMPUTE, HOST):
            if isinstance(cause.task.signal, tuple):
                found.add(cause.task.signal[1])
            cause = cause.cause
        clock = record.end
    return found
