"""The timeline of a pipeline schedule on its own, without a model."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.figures.canvas import bare, new_figure, styled
from reports.quantities import percent
from reports.style import WORK, WORK_NAMES, ink_on, light
from simulator.schedule.actions import Action
from simulator.schedule.assessment import Assessment
from simulator.schedule.evaluate import Timeline

WIDTH_IN = 13.0
_HEIGHT = 0.84  # of a device's row
_LATER = 0.45  # opacity of later chunks
_MOST_NUMBERS = 1200  # actions; beyond, microbatch numbers would be illegible
_NARROWEST_NUMBERED = 0.008  # of the step
_MOST_LABELS = 32  # devices


@styled
def schedule(found: Assessment, title: str) -> Figure:
    """A Gantt chart, with the peak activations of each device beside it."""
    devices = len(found.timeline.orders)
    figure = new_figure(1.9 + 0.36 * min(devices, _MOST_LABELS), WIDTH_IN)
    axes, side = figure.subplots(1, 2, sharey=True, width_ratios=(12, 1))
    _draw_timeline(axes, found)
    _draw_peaks(side, found)
    _head(figure, axes, found, title)
    return figure


def _draw_timeline(axes: Axes, found: Assessment) -> None:
    timeline = found.timeline
    devices = len(timeline.orders)
    numbered = sum(map(len, timeline.orders)) <= _MOST_NUMBERS
    for device in range(devices):
        axes.barh(device, timeline.makespan, height=_HEIGHT, color=light("idle"), zorder=0)
        spans: dict[tuple[float, float, str, float], list[tuple[float, float]]] = {}
        for action, start, length, top, height in _bars(timeline, device):
            opacity = _LATER if _later(action, devices) else 1.0
            colour = light(WORK[action.kind.name])
            spans.setdefault((top, height, colour, opacity), []).append((start, length))
            if numbered and length / timeline.makespan > _NARROWEST_NUMBERED:
                axes.text(
                    start + length / 2,
                    top + height / 2,
                    str(action.microbatch),
                    ha="center",
                    va="center_baseline",
                    fontsize=7 if height == _HEIGHT else 5.5,
                    color=ink_on(WORK[action.kind.name], opacity),
                    clip_on=True,
                )
        for (top, height, colour, opacity), bars in spans.items():
            edge = 0.6 if numbered else 0.15
            axes.broken_barh(
                bars, (top, height), facecolor=colour, alpha=opacity, edgecolor=light("paper"), linewidth=edge
            )
    axes.set(xlim=(0, timeline.makespan), ylim=(devices - 0.5, -0.5))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if devices <= _MOST_LABELS:
        axes.set_yticks(range(devices))
    axes.set(xlabel="time, in units of the given times", ylabel="device")
    bare(axes)


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


def _draw_peaks(side: Axes, found: Assessment) -> None:
    peaks = found.peak_activations
    side.barh(range(len(peaks)), peaks, height=0.5, color=light("grey"))
    for device, peak in enumerate(peaks if len(peaks) <= _MOST_LABELS else []):
        side.text(peak, device, f" {peak}", va="center_baseline", fontsize=8, color=light("ink"))
    side.set(xlim=(0, 1.45 * max(peaks)), xticks=[])
    side.set_xlabel("peak live")
    bare(side)


def _head(figure: Figure, axes: Axes, found: Assessment, title: str) -> None:
    """Title, figures and the colours' legend above the chart."""
    devices = len(found.timeline.orders)
    actions = [
        a for order in found.timeline.orders for action in order for a in (action, action.partner) if a
    ]
    bubble = f"bubble {found.bubble:.4g} ({percent(found.bubble_fraction)} of the step)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes.set_title(
        f"step time {found.step_time:.4g}   ·   {bubble}", fontweight="normal", color=light("muted"), pad=8
    )
    kinds = sorted({action.kind for action in actions})
    handles = [Patch(color=light(WORK[kind.name]), label=WORK_NAMES[kind.name]) for kind in kinds]
    if any(_later(action, devices) for action in actions):
        other = "other direction" if any(action.direction for action in actions) else "later chunk"
        handles.append(Patch(color=light("grey"), alpha=_LATER, label=f"paler: {other}"))
    handles.append(Patch(color=light("idle"), label="idle"))
    figure.legend(handles=handles, loc="upper right", ncols=len(handles))


def _later(action: Action, devices: int) -> bool:
    """Whether the action is of a later chunk of its device, or of the direction that enters last."""
    return action.stage >= devices or action.direction > 0
