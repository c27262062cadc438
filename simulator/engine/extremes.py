"""The largest of several normal draws: what a group waits for when its slowest member gates it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import erfc, exp, log, sqrt
from typing import NamedTuple

EDGE = 9.0  # standard deviations; beyond it nothing is left in double precision
POINTS = 1800


class Largest(NamedTuple):
    """Mean and standard deviation of the largest of n standard normal draws."""

    mean: float
    deviation: float


@cache
def largest(n: int) -> Largest:
    """Moments of the largest of ``n`` independent standard normal draws.

    E[x] = b − ∫F and E[x²] = b² − ∫2xF over (−b, b) with F = Φ(x)ⁿ (David and Nagaraja, "Order Statistics",
    3rd ed., section 3.1), by the trapezoidal rule. For n = 1, 2, 8, 1000: 0, 0.5642, 1.4236, 3.2414.
    """
    if n < 1:
        raise ValueError(f"the largest of {n} draws: there must be one")
    step = 2 * EDGE / POINTS
    area = moment = 0.0
    for index in range(1, POINTS + 1):
        x = -EDGE + index * step
        below = exp(n * _log_below(x)) * (step if index < POINTS else step / 2)
        area += below
        moment += 2.0 * x * below
    mean = EDGE - area if n > 1 else 0.0
    return Largest(mean, sqrt(max(0.0, EDGE**2 - moment - mean**2)))


class Group(NamedTuple):
    """One normal draw per rank around ``mean``."""

    mean: float
    deviation: float
    ranks: int


def expected_largest(groups: Sequence[Group]) -> float:
    """Mean of the largest draw of all groups: b − ∫ΠF from a to b, beyond which none falls."""
    low = max(group.mean - EDGE * group.deviation for group in groups)
    high = max(group.mean + EDGE * group.deviation for group in groups)
    step = (high - low) / POINTS
    if not step:
        return high
    area = 0.0
    for index in range(POINTS + 1):
        x = low + index * step
        total = sum(
            group.ranks * _log_below((x - group.mean) / group.deviation)
            for group in groups
            if group.deviation
        )
        fixed = all(x >= group.mean for group in groups if not group.deviation)
        area += exp(total) * fixed * (step if 0 < index < POINTS else step / 2)
    return high - area


def _log_below(x: float) -> float:
    """Log of the probability that a standard normal draw is less."""
    return log(max(0.5 * erfc(-x / sqrt(2.0)), 1e-300))
