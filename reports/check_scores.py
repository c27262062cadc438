"""Errors of a kernel model as lines of a table: the same on the screen and on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("class", "precision")
FIGURES = ("rows", "median |error|, %", "p90, %", "bias, %")


def error_cells(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """What stands under FIGURES, from the JSON form of a class."""
    if not figures["n"]:
        return ("0", "", "", "")
    middle, tail, bias = (100 * figures[name] for name in ("median_abs_error", "p90_abs_error", "bias"))
    return (f"{figures['n']:,}", f"{middle:.1f}", f"{tail:.1f}", f"{bias:+.1f}")
