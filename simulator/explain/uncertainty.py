"""How far off a step time may be, from the stated errors of the cost models.

Linear propagation. Kernel errors have two parts: the site part is common to all kernels of a class (clocks,
power, library version), so within a class it adds up; the random part is independent from operator to
operator. Classes are taken as independent of each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import exp, log1p, sqrt
from typing import NamedTuple

Z90 = 1.2815515655446004  # 90th percentile of the standard normal


class ErrorTerm(NamedTuple):
    """One distinct operator: its category, the time it takes in a step, its relative errors."""

    category: str
    seconds: float
    random: float
    site: float


def relative_error(terms: Iterable[ErrorTerm], breakdown_s: Mapping[str, float], step_s: float) -> float:
    """Relative standard error of a step time.

    Only time on the critical path counts: each category's errors are scaled to its share of the breakdown
    (hidden communication does not matter). Bubbles wait for compute of other stages, so they share its
    relative error.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    site: defaultdict[str, float] = defaultdict(float)
    random_squared: defaultdict[str, float] = defaultdict(float)
    for term in terms:
        seconds[term.category] += term.seconds
        site[term.category] += term.seconds * term.site
        random_squared[term.category] += (term.seconds * term.random) ** 2
    variance = 0.0
    for category, total in seconds.items():
        if total > 0 and category in breakdown_s:
            scale = breakdown_s[category] / total
            variance += scale**2 * (site[category] ** 2 + random_squared[category])
    counted = sum(spent for category, spent in breakdown_s.items() if category in seconds)
    stretched = step_s / counted if counted else 0.0  # bubbles and the rest scale with what causes them
    return sqrt(variance) * stretched / step_s


def interval(step_s: float, relative: float) -> tuple[float, float]:
    """[p10, p90] of a log-normal around the prediction."""
    sigma = sqrt(log1p(relative**2))
    return step_s * exp(-Z90 * sigma), step_s * exp(Z90 * sigma)
