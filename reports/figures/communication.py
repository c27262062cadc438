"""Communication by axis: how much of it the compute stream waits for."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.figures.canvas import bare, new_figure, styled
from reports.quantities import percent, seconds
from reports.style import AXES, light
from simulator.result import Result

_NAMES = {
    "tp": "tensor parallel (tp)",
    "cp": "context parallel (cp)",
    "ep": "expert parallel (ep)",
    "pp": "pipeline messages (pp)",
    "dp": "data parallel (dp)",
}


@styled
def communication(result: Result) -> Figure:
    """A bar per axis: the exposed part full, what is hidden behind compute pale.

    Raises ValueError for a result without details.
    """
    if result.details is None:
        raise ValueError("the result has no timeline to draw: simulate(run, timeline=True) keeps it")
    found = result.details.communication
    figure = new_figure(0.8 + 0.34 * max(1, len(found)))
    axes = figure.subplots()
    longest = max((use.total_s for use in found.values()), default=1.0)
    rows, colours = range(len(found)), [light(AXES[axis]) for axis in found]
    axes.barh(rows, [use.total_s for use in found.values()], color=colours, alpha=0.3, height=0.6)
    axes.barh(rows, [use.exposed_s for use in found.values()], color=colours, height=0.6)
    for index, use in enumerate(found.values()):
        share = percent(use.exposed_s / use.total_s if use.total_s else 0.0, 0)
        text = f"  {seconds(use.exposed_s)} of {seconds(use.total_s)} exposed ({share})"
        axes.text(use.total_s, index, text, va="center")
    axes.set_yticks(range(len(found)), [_NAMES[axis] for axis in found])
    if not found:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center")
    axes.set(
        xlim=(0, 1.4 * longest), ylim=(max(1, len(found)) - 0.5, -0.5), xlabel="time per GPU and step, s"
    )
    bare(axes)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", labelcolor=light("ink"))
    handles = [
        Patch(color=light("muted"), label="exposed"),
        Patch(color=light("muted"), alpha=0.3, label="hidden"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure
