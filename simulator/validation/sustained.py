"""One sustained factor per device and precision class, fitted on step times that the scored row is not among.

The factor slows matrix kernels down as :mod:`simulator.cost.sustained` says. It stands for what a training
step does not keep of a short benchmark's rate: clocks under the power limit, kernels that share memory and
the SMs with communication. Being fitted on whole steps it also absorbs what the simulator leaves out in
proportion to compute (unfused passes, allocator and host time), and errors of the kernel models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import TypeVar

import numpy as np

from simulator.cost.sustained import Sustained, carried_over
from simulator.explain.uncertainty import Z90
from simulator.spec.cluster import DeviceSpec
from simulator.validation.baseline import DeviceClass, device_class
from simulator.validation.predict import Expressed, Prediction
from simulator.validation.scores import weighted_quantile

K = TypeVar("K")
T = TypeVar("T")

PROBES = (1.1, 0.9, 0.77, 0.6)
"""Factors at which every row is simulated; step times between them are interpolated."""
LIMITS = (0.3, 1.5)
STEP = 1 / 256  # factors are rounded to this, so that rows share simulations; 0.2 % of a step time at most
BENCHMARK_ERROR = 0.1
"""What is known of a site before any training step on such a device: benchmarks of products on one device
differ by 8 % (A100) to 28 % (B200) from site to site. It weighs as one group that scales with the rate."""
NORMAL = 1.4826  # standard deviation over median absolute deviation of a normal distribution
LEAST_SENSITIVITY = 0.1
KIN = 0.25  # how much less the vote of a run counts for each way in which its class differs


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One row simulated at every factor of ``PROBES``: ``seconds`` in that order."""

    prediction: Prediction  # at the first of them
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

    @property
    def noise(self) -> float:
        """What errors of kernels, links and recipe make of a factor: the step time's over sensitivity."""
        low, high = self.prediction.interval_s
        return log(high / low) / (2.0 * Z90) / max(self.sensitivity, LEAST_SENSITIVITY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """The factor of one group in one class, and how much it knows: the square of its rows' sensitivity, as
    the variance of a factor is that of a step time over that square.

    ``noise``: relative standard error of the factor from everything but the clock.
    """

    example: Prediction
    factor: float
    weight: float
    noise: float
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A factor for a row with its error, and whether nothing of its own class was measured beside it."""

    sustained: Sustained
    transferred: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFactor:
    """The factor of a class over all its groups: what a kernel profile could ship, never a score.

    ``spread`` is the range of the factors that its groups would have alone.
    """

    device: str
    precision: str
    factor: float
    error: float
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
            noise=float(np.mean([row.noise for row in members])),
            rows=len(members),
        )
        for members in parts.values()
    ]


def left_out(
    rows: Sequence[Probed],
    held_together: Callable[[Prediction], str],
    devices: Mapping[str, DeviceSpec],
) -> dict[str, Factor]:
    """run_id -> factor fitted without the rows that are held together with it.

    Args:
        rows: the rows to score, which are also those to fit on.
        held_together: what is left out at once: a group, a collection or a device.
        devices: by name; architecture and power relate them.
    """
    votes = votes_of(rows)
    factors: dict[str, Factor] = {}
    for key, held in _by(rows, lambda row: held_together(row.prediction)).items():
        others = [vote for vote in votes if held_together(vote.example) != key]
        for wanted, members in _by(held, lambda row: device_class(row.prediction)).items():
            factor = elected(wanted, others, devices)
            factors |= {row.prediction.row.run_id: factor for row in members}
    return factors


def elected(wanted: DeviceClass, votes: Sequence[Vote], devices: Mapping[str, DeviceSpec]) -> Factor:
    """The weighted median of all votes, where relatives count less: by ``KIN`` for another device, and by its
    square for another width of numbers, whose products are other kernels, and for another architecture.

    Factors of other devices are carried over by their power. So a class with many groups decides alone, one
    with a single group leans on its siblings, and one that nobody else measured takes theirs. The error is
    how far votes differ (from their median absolute deviation) beyond what their other errors explain, and
    that of benchmarks where few vote.
    """
    if not votes:
        return Factor(sustained=Sustained(1.0, BENCHMARK_ERROR), transferred=True)

    def kinship(known: DeviceClass) -> float:
        differences = (known[0] != wanted[0]) + 2 * (known[1] != wanted[1])
        differences += 2 * (devices[known[0]].architecture != devices[wanted[0]].architecture)
        return float(KIN**differences)

    classes = [device_class(vote.example) for vote in votes]
    weights = np.array([vote.weight * kinship(k) for vote, k in zip(votes, classes, strict=True)])
    own = devices[wanted[0]]
    logs = np.array(
        [log(carried_over(vote.factor, devices[k[0]], own)) for vote, k in zip(votes, classes, strict=True)]
    )
    middle = weighted_quantile(logs, weights, 0.5)
    spread = NORMAL * weighted_quantile(np.abs(logs - middle), weights, 0.5)
    noise = weighted_quantile(np.array([vote.noise for vote in votes]), weights, 0.5)
    known, sites = float(weights.sum()), max(0.0, spread**2 - noise**2)
    error = sqrt((known * sites + BENCHMARK_ERROR**2) / (known + 1.0))
    found = Sustained(round(exp(middle) / STEP) * STEP, round(error / STEP) * STEP)
    return Factor(sustained=found, transferred=wanted not in classes)


def class_factors(rows: Sequence[Probed], devices: Mapping[str, DeviceSpec]) -> list[ClassFactor]:
    """One factor per device and precision class, elected by all groups."""
    votes = votes_of(rows)
    every = []
    for wanted, own in sorted(_by(votes, lambda vote: device_class(vote.example)).items()):
        factors = [vote.factor for vote in own]
        found = elected(wanted, votes, devices).sustained
        every.append(
            ClassFactor(
                device=wanted[0],
                precision=wanted[1],
                factor=found.factor,
                error=found.error or 0.0,
                rows=sum(vote.rows for vote in own),
                groups=len(own),
                spread=(min(factors), max(factors)),
            )
        )
    return every


def devices_of(expressed: Sequence[Expressed]) -> dict[str, DeviceSpec]:
    """The devices of rows, by name."""
    devices = [item.run.cluster.device for item in expressed]
    return {device.name: device for device in devices}


def _by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    parts: dict[K, list[T]] = {}
    for item in items:
        parts.setdefault(key(item), []).append(item)
    return parts
