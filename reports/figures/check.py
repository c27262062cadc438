"""Predicted beside measured kernel times of one class, and the error by how long the kernels take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from reports.figures.canvas import new_figure, styled
from reports.style import light

if TYPE_CHECKING:
    from calibration.check import Points

MOST_DOTS = 4000  # more only cover each other
_MICROSECONDS = 1e6
_BINS_PER_DECADE = 3
_FEWEST = 3  # rows of a bin that is drawn
_LIMITS = (-60.0, 100.0)  # of errors in percent; what lies beyond is drawn at the edge


@styled
def check(points: Points) -> Figure:
    """Left: every kernel under the diagonal of right predictions; right: errors, their median and 80 % band.

    Raises ValueError for a class without rows.
    """
    if not len(points.measured):
        raise ValueError(f"{points.kernel_class} {points.dtype} has no rows to draw")
    figure = new_figure(2.9)
    left, right = figure.subplots(1, 2)
    keep = np.random.default_rng(0).permutation(len(points.measured))[:MOST_DOTS]
    measured, predicted = (_MICROSECONDS * times for times in (points.measured, points.predicted))
    errors = 100 * (predicted / measured - 1)
    dots = {"s": 5, "alpha": 0.35, "linewidth": 0, "color": light("blue"), "rasterized": len(keep) > 300}
    left.scatter(measured[keep], predicted[keep], **dots)
    ends = np.array([0.8 * min(measured.min(), predicted.min()), 1.25 * max(measured.max(), predicted.max())])
    left.plot(ends, ends, color=light("ink"), linewidth=0.8)
    left.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    left.set(xlabel="measured time, µs", ylabel="predicted time, µs", title="Kernels")
    right.scatter(measured[keep], np.clip(errors[keep], *_LIMITS), **dots)
    right.axhline(0, color=light("ink"), linewidth=0.8)
    _by_size(right, measured, errors)
    right.set(xscale="log", xlim=ends, ylim=(_LIMITS[0] - 5, _LIMITS[1] + 5))
    right.set(xlabel="measured time, µs", ylabel="error, %", title="Errors, their median and 80 % of them")
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
        axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    return figure


def _by_size(axes: Axes, measured: np.ndarray, errors: np.ndarray) -> None:
    """Median and 10th to 90th percentile in bins of a third of a decade."""
    bins = np.floor(_BINS_PER_DECADE * np.log10(measured))
    for number in np.unique(bins):
        inside = errors[bins == number]
        if len(inside) < _FEWEST:
            continue
        low, middle, high = np.quantile(inside, (0.1, 0.5, 0.9))
        ends = 10 ** (np.array([number, number + 1]) / _BINS_PER_DECADE)
        axes.fill_between(ends, low, high, color=light("orange"), alpha=0.3, linewidth=0, zorder=2)
        axes.plot(ends, [middle, middle], color=light("red"), linewidth=1.8, zorder=3)
