"""One sustained factor per device and precision class, fitted on step times that the scored row is not among.

The factor multiplies the compute rate of all matrix kernels, like ``sustained`` in a kernel profile. It
stands for what a training step does not keep of a short benchmark's rate: clocks under the power limit,
kernels that share the memory and the SMs with communication. Being fitted on whole steps it also absorbs what
the simulator leaves out in proportion to compute (unfused passes, allocator and host time), and errors of the
kernel models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TypeVar

import numpy as np

from simulator.spec.cluster import DeviceSpec
from simulator.validation.baseline import DeviceClass, device_class
from simulator.validation.predict import Expressed, Prediction
from simulator.validation.scores import weighted_quantile

K = TypeVar("K")
T = TypeVar("T")

PROBES = (1.0, 0.8, 0.6)  # factors at which every row is simulated; step times between them are interpolated
LIMITS = (0.3, 1.5)
STEP = 1 / 256  # factors are rounded to this, so that rows share simulations; 0.2 % of a step time at most
KIN = 0.25  # how much less the vote of a run counts for each way in which its class differs


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One row simulated at every factor of ``PROBES``: ``seconds`` in that order."""

    prediction: Prediction  # at factor 1
    seconds: tuple[float, ...]

    def at(self, factor: float) -> float:
        """Step time at a factor: linear in its inverse between probes and beyond the last ones."""
        inverse = [1.0 / probe for probe in PROBES]
        x = 1.0 / factor
        index = min(max(int(np.searchsorted(inverse, x)) - 1, 0), len(PROBES) - 2)
        low, high = inverse[index], inverse[index + 1]
        share = (x - low) / (high - low)
        return self.seconds[index] + share * (self.seconds[index + 1] - self.seconds[index])

    @property
    def sensitivity(self) -> float:
        """The share of the step time that scales with the compute rate, over the range of the probes."""
        return log(self.seconds[-1] / self.seconds[0]) / log(PROBES[0] / PROBES[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The factor of one group in one class, and how much it knows: the square of its rows' sensitivity, as
    the variance of a factor is that of a step time over that square."""

    example: Prediction
    factor: float
    weight: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A factor for a row, and whether nothing of its own class was measured beside it."""

    value: float
    transferred: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFactor:
    """The factor of a class over all its groups: what a kernel profile could ship, never a score.

    ``spread`` is the range of the factors that its groups would have alone.
    """

    device: str
    precision: str
    factor: float
    rows: int
    groups: int
    spread: tuple[float, float]


def fit(rows: Sequence[Probed]) -> float:
    """The factor at which the median log error of the rows is zero."""
    weights = np.ones(len(rows))

    def bias(factor: float) -> float:
        logs = np.array([log(row.at(factor) / row.prediction.measured_s) for row in rows])
        return weighted_quantile(logs, weights, 0.5)

    low, high = LIMITS
    while high - low > STEP / 4:  # a larger factor never lengthens a step
        middle = (low + high) / 2
        low, high = (low, middle) if bias(middle) < 0 else (middle, high)
    return (low + high) / 2


def votes_of(rows: Sequence[Probed]) -> list[Vote]:
    """One vote for every group and class, so that near-copies of a run count once."""
    parts = _by(rows, lambda row: (row.prediction.row.identity.group, device_class(row.prediction)))
    return [
        Vote(
            example=members[0].prediction,
            factor=fit(members),
            weight=float(np.mean([row.sensitivity for row in members])) ** 2,
            rows=len(members),
        )
        for members in parts.values()
    ]


def left_out(
    rows: Sequence[Probed],
    held_together: Callable[[Prediction], str],
    architectures: Mapping[str, str],
) -> dict[str, Factor]:
    """run_id -> factor fitted without the rows that are held together with it.

    Args:
        rows: the rows to score, which are also those to fit on.
        held_together: what is left out at once: a group, a collection or a device.
        architectures: device -> architecture, by which devices are related.
    """
    votes = votes_of(rows)
    factors: dict[str, Factor] = {}
    for key, held in _by(rows, lambda row: held_together(row.prediction)).items():
        others = [vote for vote in votes if held_together(vote.example) != key]
        for wanted, members in _by(held, lambda row: device_class(row.prediction)).items():
            factor = elected(wanted, others, architectures)
            factors |= {row.prediction.row.run_id: factor for row in members}
    return factors


def elected(wanted: DeviceClass, votes: Sequence[Vote], architectures: Mapping[str, str]) -> Factor:
    """The weighted median of all votes, where relatives count less: by ``KIN`` for another device, another
    width of numbers, and twice that for another architecture.

    So a class with many groups decides alone, one with a single group leans on its siblings, and one that
    nobody else measured takes theirs.
    """
    if not votes:
        return Factor(value=1.0, transferred=True)

    def kinship(known: DeviceClass) -> float:
        differences = (known[0] != wanted[0]) + (known[1] != wanted[1])
        differences += 2 * (architectures[known[0]] != architectures[wanted[0]])
        return float(KIN**differences)

    classes = [device_class(vote.example) for vote in votes]
    weights = np.array([vote.weight * kinship(k) for vote, k in zip(votes, classes, strict=True)])
    logs = np.array([log(vote.factor) for vote in votes])
    value = exp(weighted_quantile(logs, weights, 0.5))
    return Factor(value=round(value / STEP) * STEP, transferred=wanted not in classes)


def class_factors(rows: Sequence[Probed], architectures: Mapping[str, str]) -> list[ClassFactor]:
    """One factor per device and precision class, elected by all groups."""
    votes = votes_of(rows)
    found = []
    for wanted, own in sorted(_by(votes, lambda vote: device_class(vote.example)).items()):
        factors = [vote.factor for vote in own]
        found.append(
            ClassFactor(
                device=wanted[0],
                precision=wanted[1],
                factor=elected(wanted, votes, architectures).value,
                rows=sum(vote.rows for vote in own),
                groups=len(own),
                spread=(min(factors), max(factors)),
            )
        )
    return found


def architectures_of(expressed: Sequence[Expressed]) -> dict[str, str]:
    """device -> architecture."""
    devices: list[DeviceSpec] = [item.run.cluster.device for item in expressed]
    return {device.name: device.architecture for device in devices}


def _by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    parts: dict[K, list[T]] = {}
    for item in items:
        parts.setdefault(key(item), []).append(item)
    return parts
