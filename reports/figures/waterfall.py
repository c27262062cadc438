"""From the device's peak to the MFU: a bar per loss, each hanging where the one above it ended."""

from __future__ import annotations

from matplotlib.figure import Figure

from reports.figures.bars import hanging_bars
from reports.figures.canvas import bare, new_figure, styled
from reports.losses import losses
from reports.quantities import digits, percent
from reports.style import CAUSES, light
from simulator.result import Result

_HEIGHT = 0.62  # of a bar, in rows


@styled
def waterfall(result: Result) -> Figure:
    """The peak, what every cause takes of it, and the MFU that is left."""
    rows = losses(result)
    last = len(rows) + 1
    figure = new_figure(0.75 + 0.29 * (last + 1))
    axes = figure.subplots()
    axes.barh(0, 100.0, color=light("muted"), height=_HEIGHT)
    axes.text(100.0, 0, f"  {digits(result.peak_flops / 1e12)} TFLOP/s", va="center")
    steps = [100.0]
    for index, row in enumerate(rows, start=1):
        steps.append(steps[-1] - 100.0 * row.share)
        axes.text(max(steps[-2:]), index, f"  {row.printed} %", va="center")
    hanging_bars(axes, steps, [CAUSES.get(row.kind, "grey") for row in rows], _HEIGHT)
    axes.barh(last, 100.0 * result.mfu, color=light("green"), height=_HEIGHT)
    axes.text(100.0 * result.mfu, last, f"  {percent(result.mfu)}", va="center", fontweight="bold")
    axes.set_yticks(range(last + 1), ["device peak", *(row.words for row in rows), "MFU"])
    axes.set(xlim=(0, 114), ylim=(last + 0.5, -0.5), xlabel="share of the peak, %", xticks=range(0, 101, 20))
    bare(axes)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelcolor=light("ink"))
    return figure
