"""Predictions beside published measurements: every row, errors by device, groups left out, the worst rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from reports.causes import by_kind
from reports.figures.canvas import bare, new_figure, styled
from reports.style import CAUSES, CYCLE, light
from reports.validation_scores import percent, worst
from simulator.validation.scores import score, split

if TYPE_CHECKING:
    from simulator.validation.predict import Prediction
    from simulator.validation.report import Validation

BAND = 0.10  # drawn around the diagonal
BINS = np.linspace(-0.5, 0.5, 41)  # of errors; what lies beyond falls into the last ones
WIDE = 0.5
_COLUMNS = 3  # of small histograms


def figures(validation: Validation, left_out: Validation | None, count: int) -> dict[str, Figure]:
    """Every figure that there are rows for, by name; ``count``: of the worst rows."""
    if not validation.counted:
        return {}
    found = {"scatter": scatter(validation), "errors": histograms(validation)}
    if left_out is not None and left_out.counted:
        found["left-out"] = before_after(validation, left_out)
    return {**found, "worst": worst_rows(validation, count)}


@styled
def scatter(validation: Validation) -> Figure:
    """Predicted against measured step times; circles are dense models, triangles mixtures of experts."""
    sources = split(validation.counted, lambda p: p.row.identity.collection)
    figure = new_figure(5.2)
    axes, side = figure.subplots(1, 2, width_ratios=(1, 1))
    others = validation.uncounted
    for panel, value in ((axes, _predicted), (side, _error)):
        panel.scatter(
            [p.measured_s for p in others], [value(p) for p in others], s=7, color=light("line"), zorder=1
        )
        for index, rows in enumerate(sources.values()):
            for marker, moe in (("o", False), ("^", True)):
                chosen = [p for p in rows if p.row.is_moe == moe]
                panel.scatter(
                    [p.measured_s for p in chosen],
                    [value(p) for p in chosen],
                    s=16,
                    marker=marker,
                    color=light(CYCLE[index % len(CYCLE)]),
                    alpha=0.75,
                    linewidth=0,
                    zorder=2,
                )
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        panel.set_xlabel("measured step time, s")
    _diagonal(axes, [*validation.counted, *others])
    side.axhspan(-100 * BAND, 100 * BAND, color=light("grey"), alpha=0.15, linewidth=0)
    side.axhline(0, color=light("ink"), linewidth=0.8)
    side.set(ylabel="error of the step time, %", title="Errors", ylim=(-70, 70))
    _legend(figure, list(sources), uncounted=bool(others))
    return figure


def _predicted(p: Prediction) -> float:
    return p.predicted_s


def _error(p: Prediction) -> float:
    return 100 * p.error


def _diagonal(axes: Axes, rows: Sequence[Prediction]) -> None:
    times = [time for p in rows for time in (p.measured_s, p.predicted_s)]
    ends = np.array([0.8 * min(times), 1.25 * max(times)])
    axes.fill_between(
        ends, ends * (1 - BAND), ends * (1 + BAND), color=light("grey"), alpha=0.15, linewidth=0
    )
    axes.plot(ends, ends, color=light("ink"), linewidth=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.set(xlim=ends, ylim=ends, ylabel="predicted step time, s", title="Step times, and a band of ±10 %")


def _legend(figure: Figure, sources: Sequence[str], *, uncounted: bool) -> None:
    handles = [
        Line2D([], [], linestyle="", marker="o", color=light(CYCLE[index % len(CYCLE)]), label=name)
        for index, name in enumerate(sources)
    ]
    handles.append(Line2D([], [], linestyle="", marker="^", color=light("muted"), label="MoE"))
    if uncounted:
        handles.append(
            Line2D([], [], linestyle="", marker="o", color=light("line"), label="recipe not fully known")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=6, handletextpad=0.1)


@styled
def histograms(validation: Validation) -> Figure:
    """Errors of the rows on each device, dense models below mixtures of experts."""
    devices = split(validation.counted, lambda p: p.device)
    rows = -(-len(devices) // _COLUMNS)
    figure = new_figure(0.6 + 1.5 * rows)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharex=True)
    for axes in panels.flat[len(devices) :]:
        axes.set_visible(False)
    for axes, (device, members) in zip(panels.flat, sorted(devices.items()), strict=False):
        errors = [
            np.clip([p.error for p in members if p.row.is_moe == moe], -WIDE, WIDE) for moe in (False, True)
        ]
        axes.hist(errors, bins=list(BINS), stacked=True, color=[light("blue"), light("orange")])
        axes.axvline(0, color=light("ink"), linewidth=0.8)
        s = score(members)
        axes.set_title(f"{device}: {s.rows} rows, median {percent(s.median)} %", fontsize=8.5)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        axes.tick_params(labelbottom=True)
    figure.supxlabel("error of the step time, % (what is beyond ±50 % stands at the edge)", fontsize=9)
    figure.supylabel("rows", fontsize=9)
    handles = [Patch(color=light("blue"), label="dense"), Patch(color=light("orange"), label="MoE")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


@styled
def before_after(shipped: Validation, left_out: Validation) -> Figure:
    """Median |error| by source, device and kind: as shipped, and where the fit has not seen the group."""
    cells, others = shipped.cells(), left_out.cells()
    names = sorted(set(cells) & set(others), reverse=True)
    figure = new_figure(0.9 + 0.27 * len(names))
    axes = figure.subplots()
    for index, name in enumerate(names):
        before, after = (100 * score(found[name]).median for found in (cells, others))
        axes.plot([before, after], [index, index], color=light("grey"), linewidth=1.5, zorder=1)
        axes.scatter(before, index, color=light("blue"), s=34, zorder=2)
        axes.scatter(after, index, color=light("orange"), s=34, zorder=3)
    axes.set_yticks(range(len(names)), [" · ".join(name) for name in names])
    axes.set(xlabel="median |error|, %", ylim=(-0.6, len(names) - 0.4))
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", labelcolor=light("ink"))
    handles = [
        Line2D([], [], linestyle="", marker="o", color=light(colour), label=label)
        for colour, label in (("blue", "as shipped"), ("orange", "group left out of the fit"))
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


@styled
def worst_rows(validation: Validation, count: int) -> Figure:
    """Where the prediction spends its time, as a share of the measured step, which the line marks."""
    rows = worst(validation, count)
    figure = new_figure(0.9 + 0.3 * len(rows))
    axes = figure.subplots()
    for index, p in enumerate(rows):
        begin = 0.0
        for kind, seconds in by_kind(p.breakdown_s).items():
            share = 100 * seconds / p.measured_s
            axes.barh(index, share, left=begin, color=light(CAUSES.get(kind, "line")), height=0.66)
            begin += share
        low, high = (100 * end / p.measured_s for end in p.interval_s)
        axes.plot([low, high], [index, index], color=light("ink"), linewidth=1.0)
        axes.text(max(begin, high), index, f"  {100 * p.error:+.0f} %", va="center", fontsize=8)
    axes.axvline(100, color=light("ink"), linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_yticks(range(len(rows)), [f"{index}" for index in range(1, len(rows) + 1)])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="predicted time, % of the measured step", ylabel="row")
    axes.set_xlim(0, 1.12 * max(100.0, *(100 * p.interval_s[1] / p.measured_s for p in rows)))
    bare(axes)
    axes.grid(visible=True, axis="x")
    interval = Line2D([], [], color=light("ink"), linewidth=1.0, label="p10 – p90")
    handles = [*(Patch(color=light(colour), label=kind) for kind, colour in CAUSES.items()), interval]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure
