"""The pipeline's schedule as it ran: a row per stage, compute above its communication."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.figures.bars import Box, boxes
from reports.figures.canvas import bare, new_figure, styled
from reports.figures.labels import Label, Labels
from reports.style import AXES, OPTIMIZER, WORK, WORK_NAMES, ink_on, light, ramp
from simulator.details import Work
from simulator.result import Result, TimelineEvent

Span: TypeAlias = tuple[float, float]  # from and to, s
COMPUTE = "compute"
MANY = 12_000  # bars; beyond, they are drawn as pixels
CLOSE_BARS = 26  # in a row of the close-up
MOST_LABELS = 32
_TOP, _WORK, _LANE = -0.46, 0.6, 0.13  # a row: work from −0.46 to 0.14, then two lanes
_UNDER = _TOP + _WORK + 0.02
_LANES = {  # by category of the timeline: colour, edges in a row, name
    "optimizer": (OPTIMIZER, _TOP, _TOP + _WORK, "optimizer"),
    "exposed_pp": (AXES["pp"], _UNDER, _UNDER + _LANE, "messages between stages"),
    "exposed_dp": (AXES["dp"], _UNDER + _LANE, _UNDER + 2 * _LANE, "data parallel"),
}


class _Bar(NamedTuple):
    """Something a stage does."""

    box: Box  # seconds and rows
    colour: str
    shade: float = 1.0
    number: str = ""  # of the microbatch
    size: float = 0.0  # of the number, points


@styled
def pipeline(result: Result) -> Figure:
    """The whole step, and around its first backward a close-up with the numbers of microbatches.

    Later chunks of a device (virtual stages) are paler. Raises ValueError for a result without details.
    """
    work = _details(result)
    devices = 1 + max(piece.device for piece in work)
    bars, lanes = _work_bars(work), _lane_bars(result.timeline, devices)
    window = _window(work, result.step_time_s)
    close = window[1] - window[0] < 0.7 * result.step_time_s
    row_in = 0.3 if devices <= 8 else max(0.07, min(0.22, 8.0 / devices))
    height = 1.05 + row_in * devices
    figure = new_figure(height * (2 if close else 1) + 0.3)
    panels = figure.subplots(2 if close else 1, 1, squeeze=False)[:, 0]
    whole: Axes = panels[0]
    _draw(whole, [*bars, *lanes], devices, (0.0, result.step_time_s), numbered=not close)
    whole.set_title("Whole step")
    if close:
        numbered = devices <= MOST_LABELS
        _draw(panels[1], [*bars, *lanes], devices, window, numbered=numbered)
        panels[1].set_title("Around the first backward" + ("; numbers are microbatches" if numbered else ""))
        whole.vlines(window, *whole.get_ylim(), color=light("ink"), linewidth=0.8, linestyle=(0, (3, 2)))
    _legend(figure, work, lanes)
    return figure


def _details(result: Result) -> Sequence[Work]:
    if result.details is None or not result.details.work:
        raise ValueError("the result has no timeline to draw: simulate(run, timeline=True) keeps it")
    return result.details.work


def _window(work: Sequence[Work], step_s: float) -> Span:
    """A few bars of each row before and after the first backward."""
    backward = min((piece.start_s for piece in work if piece.kind != "F"), default=0.0)
    lengths = sorted(length_s for length_s, _ in _longest(work).values())
    width = min(step_s, CLOSE_BARS * lengths[len(lengths) // 2])
    begin = min(max(0.0, backward - width / 2), step_s - width)
    return begin, begin + width


def _longest(work: Sequence[Work]) -> dict[tuple[str, int, int, int], tuple[float, int]]:
    """The length of each action's longest piece, and which of all pieces it is."""
    found: dict[tuple[str, int, int, int], tuple[float, int]] = {}
    for index, piece in enumerate(work):
        action = piece.kind, piece.stage, piece.microbatch, piece.direction
        length_s = piece.end_s - piece.start_s
        if action not in found or length_s > found[action][0]:
            found[action] = length_s, index
    return found


def _work_bars(work: Sequence[Work]) -> list[_Bar]:
    """A bar for each piece; the longest piece of an action carries its microbatch."""
    chunks = _chunks(work)
    shades = ramp(max(map(len, chunks.values())))
    numbered = {index for _, index in _longest(work).values()}
    pieces_at = Counter((piece.device, piece.start_s, piece.end_s) for piece in work)
    bars = []
    for index, piece in enumerate(work):
        half = pieces_at[piece.device, piece.start_s, piece.end_s] > 1  # a forward beside a backward
        top = piece.device + _TOP + (_WORK / 2 if half and piece.kind != "F" else 0.0)
        box = (piece.start_s, piece.end_s, top, top + (_WORK / 2 if half else _WORK))
        order = piece.direction if piece.direction else chunks[piece.device][piece.stage]
        number = str(piece.microbatch) if index in numbered else ""
        shade = shades[min(order, len(shades) - 1)]
        bars.append(_Bar(box, WORK[piece.kind], shade, number, 5.0 if half else 6.5))
    return bars


def _chunks(work: Iterable[Work]) -> dict[int, dict[int, int]]:
    """The virtual stages of each device, and which of its stages each is, first one first."""
    found: dict[int, set[int]] = {}
    for piece in work:
        found.setdefault(piece.device, set()).add(piece.stage)
    return {
        device: {stage: order for order, stage in enumerate(sorted(stages))}
        for device, stages in found.items()
    }


def _lane_bars(timeline: Iterable[TimelineEvent], devices: int) -> list[_Bar]:
    """Messages, data-parallel traffic and the optimizer of each stage, in the timeline's order of stages."""
    bars = []
    rows: dict[str, int] = {}
    for event in timeline:
        row = rows.setdefault(event.process, len(rows))
        lane = _LANES.get(event.category)
        if lane and row < devices and (event.category != "optimizer" or event.thread == COMPUTE):
            colour, top, bottom, _ = lane
            bars.append(_Bar((event.start_s, event.end_s, row + top, row + bottom), colour))
    return bars


def _draw(axes: Axes, bars: Iterable[_Bar], devices: int, window: Span, *, numbered: bool) -> None:
    """Everything that touches the window."""
    begin, end = window
    inside = [bar for bar in bars if bar.box[0] < end and bar.box[1] > begin]
    idle = [(begin, end, row + _TOP, row + _TOP + _WORK) for row in range(devices)]
    shapes: dict[tuple[str, float], list[Box]] = {("idle", 1.0): idle}
    for bar in inside:
        shapes.setdefault((bar.colour, bar.shade), []).append(bar.box)
    for (colour, shade), found in shapes.items():
        boxes(axes, found, colour, shade).set_rasterized(len(inside) > MANY)
    if numbered:
        Labels(axes, [_label(bar, window) for bar in inside if _has_room(bar, window)])
    axes.set(xlim=window, ylim=(devices - 0.4, -0.6), xlabel="time, s", ylabel="stage")
    axes.set_yticks(range(0, devices, -(-devices // MOST_LABELS)))
    bare(axes)


def _shown(bar: _Bar, window: Span) -> Span:
    return max(bar.box[0], window[0]), min(bar.box[1], window[1])


def _has_room(bar: _Bar, window: Span) -> bool:
    begin, end = _shown(bar, window)
    return bar.number != "" and (end - begin) / (window[1] - window[0]) >= 0.011 * len(bar.number)


def _label(bar: _Bar, window: Span) -> Label:
    """The microbatch, in the middle of what is seen."""
    middle = sum(bar.box[2:]) / 2
    return Label(sum(_shown(bar, window)) / 2, middle, bar.number, bar.size, ink_on(bar.colour, bar.shade))


def _legend(figure: Figure, work: Iterable[Work], lanes: Iterable[_Bar]) -> None:
    kinds, found = {piece.kind for piece in work}, {bar.colour for bar in lanes}
    handles = [Patch(color=light(WORK[kind]), label=WORK_NAMES[kind]) for kind in WORK if kind in kinds]
    handles.append(Patch(color=light("idle"), label="idle"))
    for category in ("exposed_pp", "exposed_dp", "optimizer"):
        colour, _, _, name = _LANES[category]
        if colour in found:
            handles.append(Patch(color=light(colour), label=name))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles) if len(handles) < 8 else 4)
