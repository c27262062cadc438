"""One sustained factor per device and precision class, fitted on step times that the scored row is not among.

The factor multiplies the compute rate of all matrix kernels, like ``sustained`` in a kernel profile. It
stands for what a training step does not keep of a short benchmark's rate: clocks under the power limit,
kernels that share the memory and the SMs with communication. Being fitted on whole steps it also absorbs what
the simulator leaves out in proportion to compute (unfused passes, allocator and host time), and errors of the
kernel models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import TypeVar

import numpy as np

from simulator.spec.cluster import DeviceSpec
from simulator.validation.baseline import DeviceClass, device_class
from simulator.validation.predict import Expressed, Prediction
from simulator.validation.scores import weighted_quantile

K = TypeVar("K")

PROBES = (1.0, 0.8, 0.6)  # factors at which every row is simulated; step times between them are interpolated
LIMITS = (0.3, 1.5)
STEP = 1 / 256  # factors are rounded to this, so that rows share simulations; 0.2 % of a step time at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One row simulated at every factor of ``PROBES``: ``seconds`` in that order."""

    prediction: Prediction  # at factor 1
    seconds: tuple[float, ...]

    @property
    def group(self) -> str:
        """The row's group."""
        return self.prediction.row.identity.group

    def at(self, factor: float) -> float:
        """Step time at a factor: linear in its inverse between probes and beyond the last ones."""
        inverse = [1.0 / probe for probe in PROBES]
        x = 1.0 / factor
        index = min(max(int(np.searchsorted(inverse, x)) - 1, 0), len(PROBES) - 2)
        low, high = inverse[index], inverse[index + 1]
        share = (x - low) / (high - low)
        return self.seconds[index] + share * (self.seconds[index + 1] - self.seconds[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A factor for a row, and whether it comes from other devices than its own."""

    value: float
    transferred: bool


def fit(rows: Sequence[Probed]) -> float:
    """The factor at which the median log error is zero; every group has one vote, shared by its rows."""
    sizes = Counter(row.group for row in rows)
    weights = np.array([1.0 / sizes[row.group] for row in rows])

    def bias(factor: float) -> float:
        logs = np.array([log(row.at(factor) / row.prediction.measured_s) for row in rows])
        return weighted_quantile(logs, weights, 0.5)

    low, high = LIMITS
    while high - low > STEP / 4:  # a larger factor never lengthens a step
        middle = (low + high) / 2
        low, high = (low, middle) if bias(middle) < 0 else (middle, high)
    return round((low + high) / 2 / STEP) * STEP


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


def class_factors(rows: Sequence[Probed]) -> list[ClassFactor]:
    """One factor per device and precision class, on all rows."""
    found = []
    for (device, precision), members in sorted(_by(rows, lambda row: device_class(row.prediction)).items()):
        alone = [fit(of_group) for of_group in _by(members, lambda row: row.group).values()]
        found.append(
            ClassFactor(
                device=device,
                precision=precision,
                factor=fit(members),
                rows=len(members),
                groups=len(alone),
                spread=(min(alone), max(alone)),
            )
        )
    return found


def left_out(
    rows: Sequence[Probed],
    held_together: Callable[[Prediction], str],
    architectures: Mapping[str, str],
) -> dict[str, Factor]:
    """run_id -> factor fitted without the rows that are held together with it.

    Args:
        rows: the rows to score, which are also those to fit on.
        held_together: what is left out at once: a group, a collection or a device.
        architectures: device -> architecture, for the transfer where nothing else measured the class.
    """
    factors: dict[str, Factor] = {}
    for key, held in _by(rows, lambda row: held_together(row.prediction)).items():
        others = [row for row in rows if held_together(row.prediction) != key]
        for wanted, members in _by(held, lambda row: device_class(row.prediction)).items():
            factor = _factor(wanted, others, architectures)
            factors |= {row.prediction.row.run_id: factor for row in members}
    return factors


def _factor(wanted: DeviceClass, rows: Sequence[Probed], architectures: Mapping[str, str]) -> Factor:
    """The class's own factor, or the median over its nearest relatives that were measured."""
    by_class = _by(rows, lambda row: device_class(row.prediction))
    if wanted in by_class:
        return Factor(value=fit(by_class[wanted]), transferred=False)
    fitted = {known: fit(members) for known, members in by_class.items()}

    def related(known: DeviceClass) -> int:
        same_device = known[0] == wanted[0]
        same_architecture = architectures[known[0]] == architectures[wanted[0]]
        same_width = known[1] == wanted[1]
        return 4 * same_architecture + 2 * same_width + same_device

    if not fitted:
        return Factor(value=1.0, transferred=True)
    nearest = max(related(known) for known in fitted)
    value = median(factor for known, factor in fitted.items() if related(known) == nearest)
    return Factor(value=round(value / STEP) * STEP, transferred=True)


def _by(rows: Iterable[Probed], key: Callable[[Probed], K]) -> dict[K, list[Probed]]:
    parts: dict[K, list[Probed]] = {}
    for row in rows:
        parts.setdefault(key(row), []).append(row)
    return parts


def architectures_of(expressed: Sequence[Expressed]) -> dict[str, str]:
    """device -> architecture."""
    devices: list[DeviceSpec] = [item.run.cluster.device for item in expressed]
    return {device.name: device.architecture for device in devices}
