"""The stage split that wastes least: no device much slower than the others, every device within its memory.

A pipeline's step takes about m·(slowest device) + (p−1)·(slowest chunk), m microbatches. With one chunk
per device both are the slowest stage, and dynamic programming finds the split that minimises it. With
more chunks the same program gives the start, and layers then move one at a time from the slowest device
while the step gets shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulator.partition.stages import Chunk, split_stages

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """What must fit into ``capacity`` bytes on each device."""

    capacity: float
    layer_static: Sequence[float]  # weights, gradients, optimizer state of each layer
    layer_activations: Sequence[float]  # per microbatch in flight
    in_flight: Sequence[float]  # microbatches of each virtual stage that are alive at the peak
    embedding: float = 0.0  # all of it, with its activations
    loss: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedSplit:
    """A split, and how it compares with the even one, whose layer counts differ by at most one."""

    chunks: tuple[Chunk, ...]
    device_costs: tuple[float, ...]
    step: float  # slowest device + (p−1)/m · slowest chunk, per microbatch
    even_step: float

    @property
    def gain(self) -> float:
        """Share of the even split's step that is saved."""
        return 1 - self.step / self.even_step


def balanced(
    layer_costs: Sequence[float],
    pp: int,
    vp: int = 1,
    *,
    embedding_cost: float = 0.0,
    loss_cost: float = 0.0,
    mtp_layers: int = 0,
    mtp_cost: float = 0.0,
    microbatches: int = 0,
    placement: Sequence[Sequence[int]] | None = None,
    memory: StageMemory | None = None,
) -> BalancedSplit:
    """Split layers over pp·vp virtual stages.

    Args:
        layer_costs: time of forward and backward of each layer for one microbatch, in any unit.
        embedding_cost: on the first stage; ``loss_cost`` on the last, with ``mtp_layers`` × ``mtp_cost``.
        microbatches: per step; weighs the slowest chunk. 0: so many that only the slowest device counts.
        placement: virtual stages of each device; looped if left out.
        memory: limits, if any.

    Raises:
        ValueError: no split found fits the memory.
    """
    problem = _Problem(
        layers=np.asarray(layer_costs, float),
        first=embedding_cost,
        last=loss_cost + mtp_layers * mtp_cost,
        device_of=_device_of(pp, vp, placement),
        fill=(pp - 1) / microbatches if microbatches else 0.0,
        memory=memory,
    )
    even = np.array([len(chunk.layers) for chunk in split_stages(len(layer_costs), pp, vp, "even")])
    best = min((problem.improve(start) for start in problem.starts(even)), key=problem.score)
    overflow, step, _ = problem.score(best)
    if overflow > 0:
        raise ValueError(
            f"no split of {len(layer_costs)} layers over pp·vp = {pp * vp} stages found fits; "
            f"the best exceeds it by {overflow / 2**30:.1f} GiB of memory; use more stages, recompute or tp"
        )
    return BalancedSplit(
        chunks=split_stages(len(layer_costs), pp, vp, best.tolist(), mtp_layers=mtp_layers),
        device_costs=tuple(problem.device_costs(problem.stage_costs(best)).tolist()),
        step=step,
        even_step=problem.score(even)[1],
    )


def _device_of(pp: int, vp: int, placement: Sequence[Sequence[int]] | None) -> NDArray[np.intp]:
    if placement is None:
        return np.arange(pp * vp) % pp
    devices = {stage: device for device, stages in enumerate(placement) for stage in stages}
    return np.array([devices[stage] for stage in range(pp * vp)])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    """Costs and limits; a split is an array of layer counts per virtual stage."""

    layers: Array
    first: float
    last: float
    device_of: NDArray[np.intp]
    fill: float
    memory: StageMemory | None
    prefix: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", np.concatenate([[0.0], np.cumsum(self.layers)]))

    def stage_costs(self, counts: NDArray[np.intp]) -> Array:
        costs = _sums(self.prefix, counts)
        costs[0] += self.first
        costs[-1] += self.last
        return costs

    def device_costs(self, stage_costs: Array) -> Array:
        return np.bincount(self.device_of, weights=stage_costs).astype(float)

    def score(self, counts: NDArray[np.intp]) -> tuple[float, float, float]:
        """(bytes over capacity, step, Σ device cost²): the smallest is the best."""
        stages = self.stage_costs(counts)
        devices = self.device_costs(stages)
        step = float(devices.max() + self.fill * stages.max())
        return self.overflow(counts), round(step, 12), float((devices**2).sum())

    def overflow(self, counts: NDArray[np.intp]) -> float:
        if self.memory is None:
            return 0.0
        used = _sums(_prefix(self.memory.layer_static), counts)
        used += np.asarray(self.memory.in_flight) * _sums(_prefix(self.memory.layer_activations), counts)
        used[0] += self.memory.embedding
        used[-1] += self.memory.loss
        return max(0.0, float(np.bincount(self.device_of, weights=used).max()) - self.memory.capacity)

    def starts(self, even: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        yield even
        fits = self.by_dynamic_programming(len(even))
        if fits is not None:
            yield fits

    def by_dynamic_programming(self, stages: int) -> NDArray[np.intp] | None:
        """Least slowest stage, then least Σ cost². A chunk may take 1/v of the memory; None if none fits."""
        n = len(self.layers)
        cost = [self.segment_costs(s, stages) for s in range(stages)]
        slowest = np.where(np.arange(n + 1) == 0, 0.0, np.inf)
        for matrix in cost:
            slowest = np.maximum(slowest[:, None], matrix).min(axis=0)
        if not np.isfinite(slowest[n]):
            return None
        limit = slowest[n] * (1 + 1e-12)
        total = np.where(np.arange(n + 1) == 0, 0.0, np.inf)
        choices = []
        for matrix in cost:
            sums = total[:, None] + np.where(matrix <= limit, matrix**2, np.inf)
            choices.append(sums.argmin(axis=0))
            total = sums.min(axis=0)
        ends = [n]
        for choice in reversed(choices):
            ends.append(int(choice[ends[-1]]))
        return np.diff(ends[::-1])

    def segment_costs(self, stage: int, stages: int) -> Array:
        """Cost of layers k … n−1 on a stage, at [k, n]; ∞ where n < k or they do not fit."""
        costs = self.prefix[None, :] - self.prefix[:, None]
        costs = costs + (self.first if stage == 0 else 0.0) + (self.last if stage == stages - 1 else 0.0)
        if self.memory is not None:
            per_layer = np.asarray(self.memory.layer_static) + self.memory.in_flight[stage] * np.asarray(
                self.memory.layer_activations
            )
            prefix = _prefix(per_layer)
            used = prefix[None, :] - prefix[:, None]
            used = used + (self.memory.embedding if stage == 0 else 0.0)
            used = used + (self.memory.loss if stage == stages - 1 else 0.0)
            share = self.memory.capacity / np.count_nonzero(self.device_of == self.device_of[stage])
            costs = np.where(used <= share, costs, np.inf)
        return np.where(np.tri(len(self.prefix), k=-1, dtype=bool), np.inf, costs)

    def improve(self, counts: NDArray[np.intp]) -> NDArray[np.intp]:
        """Move single layers between stages while the score falls."""
        score = self.score(counts)
        while True:
            moved = min(self.neighbours(counts), key=self.score, default=counts)
            if self.score(moved) >= score:
                return counts
            counts, score = moved, self.score(moved)

    def neighbours(self, counts: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """One layer from the slowest device (any device while memory overflows) to any stage."""
        slowest = self.device_costs(self.stage_costs(counts)).argmax()
        giving = (self.device_of == slowest) | (self.overflow(counts) > 0)
        for source in np.flatnonzero(giving & (counts > 0)):
            for target in range(len(counts)):
                if target != source:
                    moved = counts.copy()
                    moved[source] -= 1
                    moved[target] += 1
                    yield moved


def _prefix(values: Sequence[float] | Array) -> Array:
    """Sums of the first n values, n from 0."""
    return np.concatenate([[0.0], np.cumsum(np.asarray(values, float))])


def _sums(prefix: Array, counts: NDArray[np.intp]) -> Array:
    ends = np.cumsum(counts)
    sums: Array = prefix[ends] - prefix[ends - counts]
    return sums
