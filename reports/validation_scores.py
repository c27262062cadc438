"""Scores of a validation as lines of a table: the same on the screen and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simulator.validation.scores import score

if TYPE_CHECKING:
    from simulator.validation.predict import Prediction
    from simulator.validation.report import Validation

NAMES = ("source", "device", "model")
FIGURES = ("rows", "groups", "median", "mean", "p90", "worst", "bias", "inside", "constant HFU")
TITLES = {
    "shipped": "Shipped coefficients (their sustained rates have seen these rows: see --cross-validate)",
    "leave-one-group-out": "One factor per device and precision class, fitted without the row's group",
    "leave-one-source-out": "The same, fitted without the row's source",
    "leave-one-device-out": "Before buying: factor of sibling devices, the row's own device left out",
}


class Line(NamedTuple):
    """What was scored, in words under NAMES, and its scores under FIGURES (errors in percent)."""

    names: tuple[str, str, str]
    figures: tuple[str, ...]


def score_lines(validation: Validation) -> list[list[Line]]:
    """Three blocks: by source, device and kind of model; all together; rows that do not count."""
    baseline = validation.baseline()
    counted = validation.counted
    cells = [_line(key, rows, baseline) for key, rows in sorted(validation.cells().items())]
    uncounted = [validation.uncounted] if validation.uncounted else []
    return [
        cells,
        list(_totals(counted, baseline)),
        [_line(("not counted", "", "recipe not fully known"), rows, baseline) for rows in uncounted],
    ]


def worst(validation: Validation, count: int) -> list[Prediction]:
    """The counted rows with the largest errors, worst first."""
    return sorted(validation.counted, key=lambda p: -abs(p.error))[:count]


def _totals(counted: Sequence[Prediction], baseline: Mapping[str, float]) -> Iterator[Line]:
    parts = {
        "all": counted,
        "dense": [p for p in counted if not p.row.is_moe],
        "MoE": [p for p in counted if p.row.is_moe],
    }
    for name, rows in parts.items():
        if rows:
            yield _line((name, "", "one vote per row"), rows, baseline)
            yield _line((name, "", "one vote per group"), rows, baseline, by_group=True)


def _line(
    names: tuple[str, str, str],
    rows: Sequence[Prediction],
    baseline: Mapping[str, float],
    *,
    by_group: bool = False,
) -> Line:
    s = score(rows, by_group=by_group)
    figures = (
        str(s.rows),
        str(s.groups),
        *(percent(value) for value in (s.median, s.mean, s.p90, s.worst)),
        f"{100 * s.bias:+.1f}",
        f"{100 * s.coverage:.0f}",
        _constant(rows, baseline),
    )
    return Line(names, figures)


def _constant(rows: Iterable[Prediction], errors: Mapping[str, float]) -> str:
    """Median / p90 of the constant-HFU predictor."""
    known = np.abs([errors[p.row.run_id] for p in rows if p.row.run_id in errors])
    return f"{percent(np.median(known))} / {percent(np.quantile(known, 0.9))}" if len(known) else "–"


def percent(value: float) -> str:
    """``4.2``: a relative error without its sign of percent, which stands in a heading."""
    return f"{100 * value:.1f}"
