"""How good a set of predictions is: errors, coverage, per row or with one vote per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from simulator.validation.predict import Prediction

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Relative errors of a set of predictions; ``bias`` is the signed median, the others are of |error|.

    ``coverage`` is the share of measurements inside their 80 % interval, ``width`` the median of
    (p90 − p10) / predicted. All are weighted: one vote per row, or one per group.
    """

    rows: int
    groups: int
    median: float
    mean: float
    p90: float
    worst: float
    bias: float
    coverage: float
    width: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def score(predictions: Sequence[Prediction], *, by_group: bool = False) -> Score:
    """The score of at least one prediction; ``by_group`` gives each group one vote, shared by its rows."""
    if not predictions:
        raise ValueError("no predictions to score")
    sizes = Counter(p.row.identity.group for p in predictions)
    weights = np.array([1.0 / sizes[p.row.identity.group] if by_group else 1.0 for p in predictions])
    errors = np.array([p.error for p in predictions])
    sure = np.array([p.inside for p in predictions], dtype=float)
    widths = np.array([(p.interval_s[1] - p.interval_s[0]) / p.predicted_s for p in predictions])
    sizes_of_error = np.abs(errors)
    return Score(
        rows=len(predictions),
        groups=len(sizes),
        median=weighted_quantile(sizes_of_error, weights, 0.5),
        mean=float(np.average(sizes_of_error, weights=weights)),
        p90=weighted_quantile(sizes_of_error, weights, 0.9),
        worst=float(sizes_of_error.max()),
        bias=weighted_quantile(errors, weights, 0.5),
        coverage=float(np.average(sure, weights=weights)),
        width=weighted_quantile(widths, weights, 0.5),
    )


def weighted_quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """The quantile of a weighted sample, linear between the midpoints of the weights.

    With equal weights the median is the usual one.
    """
    order = np.argsort(values, kind="stable")
    ordered, heavy = values[order], weights[order]
    position = (np.cumsum(heavy) - 0.5 * heavy) / heavy.sum()
    return float(np.interp(q, position, ordered))


def split(predictions: Iterable[Prediction], key: Callable[[Prediction], K]) -> dict[K, list[Prediction]]:
    """Predictions by a key, in the order of first appearance."""
    parts: dict[K, list[Prediction]] = {}
    for prediction in predictions:
        parts.setdefault(key(prediction), []).append(prediction)
    return parts


def counts(prediction: Prediction) -> bool:
    """Only rows whose layout, batch and recipe are known count as evidence."""
    return prediction.row.identity.confidence == "high"
