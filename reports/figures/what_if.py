"""What better hardware gives: the step time that goes with one figure 10 % better."""

from __future__ import annotations

from matplotlib.figure import Figure

from reports.better_hardware import gains, saved
from reports.figures.canvas import bare, new_figure, styled
from reports.style import light
from simulator.result import Result
from simulator.spec.run import RunSpec


@styled
def what_if(result: Result, run: RunSpec) -> Figure:
    """A bar per figure, the most useful first. Raises ValueError for a result without ``what_if``."""
    if not result.what_if:
        raise ValueError("the result knows no other hardware: simulator.what_if.with_what_if adds it")
    rows = gains(result, run)
    figure = new_figure(0.75 + 0.29 * len(rows))
    axes = figure.subplots()
    shares = [100 * max(0.0, row.share) for row in rows]
    axes.barh(range(len(rows)), shares, color=light("green"), height=0.62)
    for index, (row, share) in enumerate(zip(rows, shares, strict=True)):
        axes.text(share, index, f"  {saved(row)}", va="center")
    axes.set_yticks(range(len(rows)), [row.words for row in rows])
    axes.set(xlim=(0, 10.5), ylim=(len(rows) - 0.5, -0.5), xlabel="step time saved, %")
    bare(axes)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelcolor=light("ink"))
    return figure
