"""Where the step goes: a waterfall from the first kernel to the end of the step."""

from __future__ import annotations

from matplotlib.figure import Figure

from reports.causes import causes
from reports.figures.bars import hanging_bars
from reports.figures.canvas import bare, new_figure, styled
from reports.quantities import percentages, seconds
from reports.style import CAUSES, light
from simulator.result import Result

SMALL = 0.01  # of the step: kernels below it are put together
_HEIGHT = 0.62  # of a bar, in rows


@styled
def breakdown(result: Result) -> Figure:
    """One bar per cause, each beginning where the one above it ended, so that together they fill the step.

    The first row is what the model's FLOPs would take at the device's peak; its share of the step is the MFU.
    """
    step = result.step_time_s
    rows = causes(result.breakdown_s, least_s=SMALL * step)
    last = len(rows) + 1
    figure = new_figure(0.75 + 0.29 * (last + 1))
    axes = figure.subplots()
    axes.barh(0, result.mfu * step, color=light("line"), height=_HEIGHT)
    axes.text(result.mfu * step, 0, f"  {seconds(result.mfu * step)}", va="center", color=light("muted"))
    ends = [0.0]
    shares = percentages([row.seconds for row in rows])
    for index, (row, share) in enumerate(zip(rows, shares, strict=True), start=1):
        begin, end = ends[-1], ends[-1] + row.seconds
        ends.append(end)
        left = end > 0.8 * step
        label = f"{seconds(row.seconds)}  ·  {share} %"
        axes.text(begin if left else end, index, f"  {label}  ", va="center", ha="right" if left else "left")
    hanging_bars(axes, ends, [CAUSES.get(row.kind, "grey") for row in rows], _HEIGHT)
    axes.barh(last, step, color=light("muted"), height=_HEIGHT)
    axes.text(step, last, f"  {seconds(step, 4)}", va="center", fontweight="bold")
    axes.set_yticks(range(last + 1), ["model FLOPs at peak", *(row.words for row in rows), "step"])
    axes.set(xlim=(0, 1.1 * step), ylim=(last + 0.5, -0.5), xlabel="time, s (mean over all GPUs)")
    bare(axes)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelcolor=light("ink"))
    return figure
