"""Draws the timeline of a pipeline schedule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.schedule.actions import Action, Kind

if TYPE_CHECKING:
    from simulator.schedule.assessment import Assessment
    from simulator.schedule.evaluate import Timeline

# per kind: first chunk, later chunks
_COLOURS = {
    Kind.F: ("#4f86c6", "#a9c7e8"),
    Kind.B: ("#4fa36b", "#aed8bb"),
    Kind.I: ("#3aa6a0", "#a6d9d6"),
    Kind.W: ("#e5a13a", "#f4d6a3"),
}
_NAMES = {Kind.F: "forward", Kind.B: "backward", Kind.I: "input gradient", Kind.W: "weight gradient"}
_INK, _MUTED, _IDLE = "#1f2933", "#7b8794", "#eef1f4"
_HEIGHT = 0.84  # of a device's row
_MOST_NUMBERS = 1200  # actions; beyond, microbatch numbers would be illegible
_NARROWEST_NUMBERED = 0.008  # of the step
_MOST_LABELS = 32  # devices


def plot_schedule(found: Assessment, file: Path, title: str) -> None:
    """Write a Gantt chart, with the peak activations of each device beside it, as .png, .svg or .pdf.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"cannot draw into {file.name!r}: the name must end in .png, .svg or .pdf")
    import matplotlib as mpl  # noqa: PLC0415 (slow to import, used by few commands)
    from matplotlib.figure import Figure  # noqa: PLC0415

    devices = len(found.timeline.orders)
    style: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "svg.hashsalt": "stepcast",
        "svg.fonttype": "path",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(13, 1.9 + 0.36 * min(devices, _MOST_LABELS)), layout="constrained")
        axes, side = figure.subplots(1, 2, sharey=True, width_ratios=(12, 1))
        _draw_timeline(axes, found)
        _draw_peaks(side, found)
        _head(figure, axes, found, title)
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else None
        figure.savefig(file, dpi=160, facecolor="white", metadata=metadata)


def _draw_timeline(axes: Any, found: Assessment) -> None:
    timeline = found.timeline
    devices = len(timeline.orders)
    numbered = sum(map(len, timeline.orders)) <= _MOST_NUMBERS
    for device in range(devices):
        axes.barh(device, timeline.makespan, height=_HEIGHT, color=_IDLE, zorder=0)
        spans: dict[tuple[float, float, str], list[tuple[float, float]]] = {}
        for action, start, length, top, height in _bars(timeline, device):
            colour, ink = _colours(action, devices)
            spans.setdefault((top, height, colour), []).append((start, length))
            if numbered and length / timeline.makespan > _NARROWEST_NUMBERED:
                axes.text(
                    start + length / 2,
                    top + height / 2,
                    str(action.microbatch),
                    ha="center",
                    va="center_baseline",
                    fontsize=7 if height == _HEIGHT else 5.5,
                    color=ink,
                    clip_on=True,
                )
        for (top, height, colour), bars in spans.items():
            edge = 0.6 if numbered else 0.15
            axes.broken_barh(bars, (top, height), facecolor=colour, edgecolor="white", linewidth=edge)
    axes.set(xlim=(0, timeline.makespan), ylim=(devices - 0.5, -0.5))
    axes.yaxis.get_major_locator().set_params(integer=True)
    if devices <= _MOST_LABELS:
        axes.set_yticks(range(devices))
    axes.set_ylabel("device", color=_MUTED)
    axes.set_xlabel("time", color=_MUTED)
    _bare(axes)


def _bars(timeline: Timeline, device: int) -> Iterator[tuple[Action, float, float, float, float]]:
    """(action, start, length, top, height) of each bar; a pair is two bars of half the height."""
    for action, start, end in zip(
        timeline.orders[device], timeline.start[device], timeline.end[device], strict=True
    ):
        top = device - _HEIGHT / 2
        if action.partner is None:
            yield action, start, end - start, top, _HEIGHT
        else:
            yield action, start, end - start, top, _HEIGHT / 2
            yield action.partner, start, end - start, top + _HEIGHT / 2, _HEIGHT / 2


def _draw_peaks(side: Any, found: Assessment) -> None:
    peaks = found.peak_activations
    side.barh(range(len(peaks)), peaks, height=0.5, color="#9fb3c8")
    for device, peak in enumerate(peaks if len(peaks) <= _MOST_LABELS else []):
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
    from matplotlib.patches import Patch  # noqa: PLC0415

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


def _colours(action: Action, devices: int) -> tuple[str, str]:
    """Of the bar and of the number in it."""
    later = _later(action, devices)
    return _COLOURS[action.kind][int(later)], _INK if later else "white"


def _later(action: Action, devices: int) -> bool:
    """Whether the action is of a later chunk of its device, or of the direction that enters last."""
    return action.stage >= devices or action.direction > 0
