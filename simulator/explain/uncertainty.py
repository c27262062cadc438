"""How far off a step time may be, from the stated errors of the cost models.

Linear propagation. Errors have four parts:

- of the clock that a site's power and cooling leave: common to all matrix kernels that the limit reaches,
- of a site's kernels (library version, fusion) or links: common to a family, so within one it adds up,
- random: independent from operator to operator,
- of the recipe: what a row's or a run file's settings do not say.

Families are taken as independent of each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import exp, hypot, log1p, sqrt
from typing import NamedTuple

Z90 = 1.2815515655446004  # 90th percentile of the standard normal


RECIPE = 0.02
"""Published step times of one recipe in several releases of a software are 1.3 % (median) to 3.8 % (90th
percentile) from their set's median: 136 rows of Megatron-Bridge's tables and NVIDIA's recipes."""


class ErrorTerm(NamedTuple):
    """One distinct operator: its category, the time it takes in a step, its relative standard errors.

    ``family`` is what ``site`` is common to.
    """

    category: str
    family: str
    seconds: float
    random: float
    site: float
    clock: float


def relative_error(terms: Iterable[ErrorTerm], breakdown_s: Mapping[str, float], step_s: float) -> float:
    """Relative standard error of a step time.

    Only time on the critical path counts: each category's errors are scaled to its share of the breakdown
    (hidden communication does not matter). Bubbles wait for compute of other stages, so they share its
    relative error.
    """
    terms = list(terms)
    seconds: defaultdict[str, float] = defaultdict(float)
    for term in terms:
        seconds[term.category] += term.seconds
    site: defaultdict[str, float] = defaultdict(float)
    clock = random_squared = 0.0
    for term in terms:
        if term.seconds > 0 and term.category in breakdown_s:
            spent = term.seconds * breakdown_s[term.category] / seconds[term.category]
            site[term.family] += spent * term.site
            clock += spent * term.clock
            random_squared += (spent * term.random) ** 2
    variance = clock**2 + sum(part**2 for part in site.values()) + random_squared
    counted = sum(spent for category, spent in breakdown_s.items() if category in seconds)
    stretched = step_s / counted if counted else 0.0  # bubbles and the rest scale with what causes them
    return hypot(sqrt(variance) * stretched / step_s, RECIPE)


def interval(step_s: float, relative: float) -> tuple[float, float]:
    """[p10, p90] of a log-normal around the prediction."""
    sigma = sqrt(log1p(relative**2))
    return step_s * exp(-Z90 * sigma), step_s * exp(Z90 * sigma)
