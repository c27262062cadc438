"""Operators under the device's roof: arithmetic intensity against the rate they reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log, nan, sqrt

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from reports.figures.canvas import bare, new_figure, styled
from reports.quantities import digits, percent
from reports.style import PRODUCTS, light
from simulator.details import Details, OperatorUse
from simulator.result import Result

MOST_LABELS = 9
MOST_BARS = 10
_TERA = 1e12
_NAMES, _LINE = 0.8, 0.064  # where names begin, and how far apart they are, in fractions of the axes


@styled
def roofline(result: Result) -> Figure:
    """Left: operators with arithmetic, larger the more of the step they take; right: those without.

    Roofs are datasheet rates (Williams, Waterman and Patterson, "Roofline", CACM 2009). Raises ValueError
    for a result without details.
    """
    if result.details is None:
        raise ValueError("the result has no operators to draw: simulate(run, timeline=True) keeps them")
    kernels = [
        use for use in result.details.operators if use.seconds and not use.category.startswith("exposed")
    ]
    busy = [use for use in kernels if use.flops and use.bytes and use.dtype]
    moving = [use for use in kernels if use.bytes and not use.dtype]
    figure = new_figure(3.9)
    axes, side = figure.subplots(1, 2, width_ratios=(2.1, 1))
    _roofs(axes, result.details, busy)
    _points(axes, busy, result.step_time_s)
    _movers(side, moving, result.details.memory_bandwidth)
    return figure


def _roofs(axes: Axes, details: Details, busy: Sequence[OperatorUse]) -> None:
    intensities = [use.flops / use.bytes for use in busy] or [1.0]
    knee = max(details.peak_flops.values(), default=1e12) / details.memory_bandwidth
    low, high = min(*intensities, knee) / 3, 14 * max(*intensities, knee)  # room for names
    for dtype, peak in details.peak_flops.items():
        ridge = peak / details.memory_bandwidth
        axes.plot(
            [low, ridge, high],
            [low * details.memory_bandwidth / _TERA, peak / _TERA, peak / _TERA],
            color=light("ink"),
            linewidth=1.2,
        )
        axes.annotate(
            f"{dtype}: {digits(peak / _TERA)} TFLOP/s",
            (ridge, peak / _TERA),
            xytext=(9, 4),
            textcoords="offset points",
            fontsize=8,
        )
    rates = [use.flops / use.seconds / _TERA for use in busy] or [1.0]
    top = max((peak / _TERA for peak in details.peak_flops.values()), default=1.0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(0.6 * min(*rates, top / 3), 1.8 * top))
    middle = sqrt(axes.get_ylim()[0] * top)  # of the slope as it is seen
    axes.annotate(
        f"{digits(details.memory_bandwidth / 1e12)} TB/s",
        (middle * _TERA / details.memory_bandwidth, middle),
        xytext=(8, -2),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="arithmetic intensity, FLOP/byte", ylabel="rate, TFLOP/s", title="Products and attention")


def _points(axes: Axes, busy: Sequence[OperatorUse], step_s: float) -> None:
    """Circles by category, and names with leaders for those that take the most time."""
    ordered = sorted(busy, key=lambda use: -use.runs * use.seconds)
    axes.scatter(
        [use.flops / use.bytes for use in ordered],
        [use.flops / use.seconds / _TERA for use in ordered],
        s=[20 + 900 * use.runs * use.seconds / step_s for use in ordered],
        color=[light(PRODUCTS.get(use.category, "grey")) for use in ordered],
        alpha=0.65,
        linewidth=0,
        zorder=3,
    )
    _name(axes, ordered[:MOST_LABELS])
    handles = [_circle(name) for name in dict.fromkeys(use.category for use in ordered)]
    axes.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=3,
        borderaxespad=0.2,
        columnspacing=1,
        handletextpad=0,
    )


def _circle(category: str) -> Line2D:
    """Its entry in the legend."""
    colour, name = light(PRODUCTS.get(category, "grey")), category.replace("_", " ")
    return Line2D([], [], linestyle="", marker="o", markersize=5.5, color=colour, label=name)


def _name(axes: Axes, labelled: Sequence[OperatorUse]) -> None:
    """Names below each other on the right, each with a line to its circle, in an order in which few cross."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    places = {  # as fractions of the axes
        use.name: (
            log(use.flops / use.bytes / left) / log(right / left),
            log(use.flops / use.seconds / _TERA / low) / log(high / low),
        )
        for use in labelled
    }
    top = max(max((y for _, y in places.values()), default=0.0), _LINE * len(places))
    heights = [top - _LINE * index for index in range(len(places))]
    lines = []
    for y, name in zip(heights, _untangled(places, heights), strict=True):
        axes.text(_NAMES, y, name, transform=axes.transAxes, fontsize=7.5, va="center", in_layout=False)
        lines += [places[name], (_NAMES - 0.006, y), (nan, nan)]
    across, up = zip(*lines, strict=True) if lines else ((), ())
    axes.plot(across, up, color=light("grey"), linewidth=0.5, transform=axes.transAxes)


def _untangled(places: Mapping[str, tuple[float, float]], heights: Sequence[float]) -> list[str]:
    """Names from the top down; neighbours change places until no two of their lines cross."""
    names = sorted(places, key=lambda name: -places[name][1])
    for _ in names:
        for index, (high, low) in enumerate(pairwise(heights)):
            upper, lower = names[index : index + 2]
            x = max(places[upper][0], places[lower][0])
            if _height(places[upper], high, x) < _height(places[lower], low, x):
                names[index : index + 2] = lower, upper
    return names


def _height(place: tuple[float, float], end: float, x: float) -> float:
    """Of the line from a circle to its name, at ``x``."""
    return place[1] + (end - place[1]) * (x - place[0]) / (_NAMES - place[0]) if place[0] < _NAMES else end


def _movers(axes: Axes, moving: Sequence[OperatorUse], bandwidth: float) -> None:
    """Share of the memory bandwidth that the longest of the other kernels reach."""
    found = sorted(moving, key=lambda use: -use.runs * use.seconds)[:MOST_BARS]
    reached = [use.bytes / use.seconds / bandwidth for use in found]
    axes.barh(range(len(found)), [100 * share for share in reached], color=light("sky"), height=0.62)
    for index, share in enumerate(reached):
        axes.text(100 * share, index, f" {percent(share, 0)}", va="center", fontsize=8)
    axes.set_yticks(range(len(found)), [use.name for use in found], fontsize=7.5)
    axes.set(xlim=(0, 112), ylim=(max(len(found), 4) - 0.5, -0.5), title="Memory-bound kernels")
    axes.set_xlabel("share of the memory bandwidth, %")
    bare(axes)
    axes.grid(visible=True, axis="x")
