"""Draws the timeline of a pipeline schedule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.schedule.actions import Action, Kind

if TYPE_CHECKING:
    from simulator.schedule.assessment import Assessment

# per kind: first chunk, later chunks
_COLOURS = {
    Kind.F: ("#4f86c6", "#a9c7e8"),
    Kind.B: ("#4fa36b", "#aed8bb"),
    Kind.I: ("#3aa6a0", "#a6d9d6"),
    Kind.W: ("#e5a13a", "#f4d6a3"),
}
_NAMES = {Kind.F: "forward", Kind.B: "backward", Kind.I: "input gradient", Kind.W: "weight gradient"}
_INK, _MUTED, _IDLE = "#1f2933", "#7b8794", "#eef1f4"
_MOST_NUMBERS = 1200  # actions; beyond, microbatch numbers would be illegible


def plot_schedule(found: Assessment, file: Path, title: str) -> None:
    """Write a Gantt chart, with the peak activations of each device beside it, as .png, .svg or .pdf.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"cannot draw into {file.name!r}: the name must end in .png, .svg or .pdf")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    devices = len(found.timeline.orders)
    style = {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "stepcast", "svg.fonttype": "path"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(13, 1.9 + 0.36 * devices), layout="constrained")
        axes, side = figure.subplots(1, 2, sharey=True, width_ratios=(12, 1))
        _draw_timeline(axes, found)
        _draw_peaks(side, found)
        _head(figure, axes, found, title)
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
        figure.savefig(file, dpi=160, facecolor="white", metadata=metadata)


def _draw_timeline(axes: Any, found: Assessment) -> None:
    timeline = found.timeline
    devices = len(timeline.orders)
    count = sum(len(order) for order in timeline.orders)
    for device, order in enumerate(timeline.orders):
        axes.barh(device, timeline.makespan, height=0.84, color=_IDLE, zorder=0)
        for action, start, end in zip(order, timeline.start[device], timeline.end[device], strict=True):
            halves = [action] if action.partner is None else [action, action.partner]
            height = 0.84 / len(halves)
            for half, one in enumerate(halves):
                top = device - 0.42 + half * height
                axes.broken_barh(
                    [(start, end - start)],
                    (top, height),
                    facecolor=_colour(one, devices),
                    edgecolor="white",
                    linewidth=0.6 if count <= _MOST_NUMBERS else 0.15,
                )
                if count <= _MOST_NUMBERS and (end - start) / timeline.makespan > 0.008:
                    axes.text(
                        (start + end) / 2,
                        top + height / 2,
                        str(one.microbatch),
                        ha="center",
                        va="center_baseline",
                        fontsize=7 if len(halves) == 1 else 5.5,
                        color="white" if _colour(one, devices) == _COLOURS[one.kind][0] else _INK,
                        clip_on=True,
                    )
    axes.set(xlim=(0, timeline.makespan), ylim=(devices - 0.5, -0.5), yticks=range(devices))
    axes.set_ylabel("device", color=_MUTED)
    axes.set_xlabel("time", color=_MUTED)
    _bare(axes)


def _draw_peaks(side: Any, found: Assessment) -> None:
    peaks = found.peak_activations
    side.barh(range(len(peaks)), peaks, height=0.5, color="#9fb3c8")
    for device, peak in enumerate(peaks):
        side.text(peak, device, f" {peak}", va="center_baseline", fontsize=8, color=_INK)
    side.set(xlim=(0, 1.45 * max(peaks)), xticks=[])
    side.set_xlabel("peak live", color=_MUTED)
    side.tick_params(axis="y", length=0)
    _bare(side)


def _bare(axes: Any) -> None:
    for edge in ("top", "right", "left", "bottom"):
        axes.spines[edge].set_visible(False)
    axes.tick_params(length=0, colors=_MUTED)


def _head(figure: Any, axes: Any, found: Assessment, title: str) -> None:
    """Title, figures and the colours' legend above the chart."""
    from matplotlib.patches import Patch

    devices = len(found.timeline.orders)
    actions = [
        a for order in found.timeline.orders for action in order for a in (action, action.partner) if a
    ]
    bubble = f"bubble {found.bubble:.4g} ({100 * found.bubble_fraction:.1f} % of the step)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=_INK)
    axes.set_title(
        f"step time {found.step_time:.4g}   ·   {bubble}", loc="left", fontsize=9.5, color=_MUTED, pad=8
    )
    handles = [
        Patch(facecolor=_COLOURS[kind][0], label=_NAMES[kind]) for kind in sorted({a.kind for a in actions})
    ]
    if any(_later(a, devices) for a in actions):
        other = "other direction" if any(a.direction for a in actions) else "later chunk"
        handles.append(Patch(facecolor="#c3cfdb", label=f"paler: {other}"))
    handles.append(Patch(facecolor=_IDLE, label="idle"))
    figure.legend(
        handles=handles, loc="upper right", ncols=len(handles), frameon=False, fontsize=8.5, labelcolor=_INK
    )


def _colour(action: Action, devices: int) -> str:
    return _COLOURS[action.kind][int(_later(action, devices))]


def _later(action: Action, devices: int) -> bool:
    """Whether the action belongs to a later chunk of its device, or to the direction that enters at the last."""
    return action.stage >= devices or action.direction > 0
