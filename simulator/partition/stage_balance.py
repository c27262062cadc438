"""The stage split that wastes least: no device much slower than the others, every device within its memory.

A pipeline's step takes about m·(slowest device) + (p−1)·(slowest chunk), m microbatches. With one chunk
per device both are the slowest stage, and dynamic programming finds the split that minimises it. With
more chunks the same program gives the start, and layers then move one at a time from the slowest device
while the step gets shorter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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


def balanced(layer_costs: Sequence[float], pp: int, vp: int = 1, **more: Any) -> BalancedSplit:
    """The best of :func:`balanced_splits`, with the same arguments."""
    return balanced_splits(layer_costs, pp, vp, **more)[0]


def balanced_splits(
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
) -> list[BalancedSplit]:
    """Splits of layers over pp·vp virtual stages that are best in some way, the shortest step first.

    With one chunk per device there is one. Else one has the least slowest stage, others the least slowest
    device: steps in which stages wait for each other's every action, or make up for each other.

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
    found = {tuple(counts.tolist()): problem.score(counts) for counts in problem.candidates(even)}
    ranked = sorted(found, key=found.__getitem__)
    overflow = found[ranked[0]][0]
    if overflow > 0:
        raise ValueError(
            f"no split of {len(layer_costs)} layers over pp·vp = {pp * vp} stages found fits; "
            f"the best exceeds it by {overflow / 2**30:.1f} GiB of memory; use more stages, recompute or tp"
        )
    even_step = problem.score(even)[1]
    return [
        BalancedSplit(
            chunks=split_stages(len(layer_costs), pp, vp, counts, mtp_layers=mtp_layers),
            device_costs=tuple(problem.device_costs(problem.stage_costs(np.asarray(counts))).tolist()),
            step=found[counts][1],
            even_step=even_step,
        )
        for counts in ranked
        if not found[counts][0]
    ]


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
    static: Array = field(init=False)  # sums as ``prefix``, of bytes
    saved: Array = field(init=False)

    def __post_init__(self) -> None:
        memory = self.memory
        object.__setattr__(self, "prefix", _prefix(self.layers))
        object.__setattr__(self, "static", _prefix(memory.layer_static if memory else ()))
        object.__setattr__(self, "saved", _prefix(memory.layer_activations if memory else ()))

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
        most = float(np.bincount(self.device_of, weights=self.used(counts, self.memory)).max())
        return max(0.0, most - self.memory.capacity)

    def used(self, counts: NDArray[np.intp], memory: StageMemory) -> Array:
        """Bytes of each stage."""
        used = _sums(self.static, counts)
        used += np.asarray(memory.in_flight) * _sums(self.saved, counts)
        used[0] += memory.embedding
        used[-1] += memory.loss
        return used

    def room(self, even: NDArray[np.intp]) -> Array:
        """Bytes that each stage may take: of its device's capacity the share it takes in the even split."""
        if self.memory is None:
            return np.full(len(even), np.inf)
        used = self.used(even, self.memory)
        total = np.bincount(self.device_of, weights=used)[self.device_of]
        return np.divide(self.memory.capacity * used, total, out=np.zeros_like(used), where=total > 0)

    def candidates(self, even: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        yield self.improve(even)
        fits = self.by_dynamic_programming(self.room(even))
        if fits is not None:
            yield fits
            yield self.improve(fits)

    def by_dynamic_programming(self, room: Array) -> NDArray[np.intp] | None:
        """Least slowest stage, then least Σ cost²; None if no split keeps to the room of each stage."""
        n, stages = len(self.layers), len(room)
        cost = [self.segment_costs(s, stages, room[s]) for s in range(stages)]
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

    def segment_costs(self, stage: int, stages: int, room: float) -> Array:
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
            costs = np.where(used <= room * (1 + 1e-12), costs, np.inf)
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
