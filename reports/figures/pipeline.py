"""The pipeline's schedule as it ran: a row per stage, compute above its communication."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from reports.figures.canvas import bare, new_figure, styled
from reports.style import AXES, OPTIMIZER, WORK, WORK_NAMES, ink_on, light, ramp
from simulator.details import Work
from simulator.result import Result, TimelineEvent

Span: TypeAlias = tuple[float, float]  # start and length, s
_Action: TypeAlias = tuple[str, int, int, int]
COMPUTE = "compute"
MANY = 12_000  # bars; beyond, they are drawn as pixels
CLOSE_BARS = 26  # in a row of the close-up
MOST_LABELS = 32
_TOP, _WORK, _LANE = -0.46, 0.6, 0.13  # a row: work from −0.46 to 0.14, then two lanes


class _Lanes(NamedTuple):
    """What a stage shows under its work."""

    messages: list[Span]
    data: list[Span]
    optimizer: list[Span]


@styled
def pipeline(result: Result) -> Figure:
    """The whole step, and around its first backward a close-up with the numbers of microbatches.

    Later chunks of a device (virtual stages) are paler. Raises ValueError for a result without details.
    """
    work = _details(result)
    devices = 1 + max(piece.device for piece in work)
    lanes = _lanes(result.timeline, devices)
    window = _window(work, result.step_time_s)
    close = window[1] - window[0] < 0.7 * result.step_time_s
    row_in = 0.3 if devices <= 8 else max(0.07, min(0.22, 8.0 / devices))
    height = 1.05 + row_in * devices
    figure = new_figure(height * (2 if close else 1) + 0.3)
    panels = figure.subplots(2 if close else 1, 1, squeeze=False)[:, 0]
    whole: Axes = panels[0]
    _draw(whole, work, lanes, (0.0, result.step_time_s), numbered=not close)
    whole.set_title("Whole step")
    if close:
        _draw(panels[1], work, lanes, window, numbered=devices <= MOST_LABELS)
        numbers = "; numbers are microbatches" if devices <= MOST_LABELS else ""
        panels[1].set_title(f"Around the first backward{numbers}")
        for edge in window:
            whole.axvline(edge, color=light("ink"), linewidth=0.8, linestyle=(0, (3, 2)))
    _legend(figure, work, lanes)
    return figure


def _details(result: Result) -> Sequence[Work]:
    if result.details is None or not result.details.work:
        raise ValueError("the result has no timeline to draw: simulate(run, timeline=True) keeps it")
    return result.details.work


def _window(work: Sequence[Work], step_s: float) -> Span:
    """From and to: a few bars of each row before and after the first backward."""
    backward = min((piece.start_s for piece in work if piece.kind != "F"), default=0.0)
    lengths = sorted(_longest(work).values())
    width = min(step_s, CLOSE_BARS * lengths[len(lengths) // 2])
    begin = min(max(0.0, backward - width / 2), step_s - width)
    return begin, begin + width


def _lanes(timeline: Iterable[TimelineEvent], devices: int) -> list[_Lanes]:
    """Messages, data-parallel traffic and the optimizer of each stage, in the timeline's order of stages."""
    found = [_Lanes([], [], []) for _ in range(devices)]
    names: dict[str, int] = {}
    for event in timeline:
        row = names.setdefault(event.process, len(names))
        if row >= devices:
            continue
        span = (event.start_s, event.end_s - event.start_s)
        if event.category == "exposed_pp":
            found[row].messages.append(span)
        elif event.category == "exposed_dp":
            found[row].data.append(span)
        elif event.category == "optimizer" and event.thread == COMPUTE:
            found[row].optimizer.append(span)
    return found


def _draw(axes: Axes, work: Sequence[Work], lanes: Sequence[_Lanes], window: Span, *, numbered: bool) -> None:
    """Everything that touches the window."""
    begin, end = window
    devices = len(lanes)
    chunks = _chunks(work)
    opacity = ramp(max(map(len, chunks.values())))
    bars: dict[tuple[int, float, float, str, float], list[Span]] = {}
    pairs, longest = _pairs(work), _longest(work)
    for piece in work:
        if piece.end_s <= begin or piece.start_s >= end:
            continue
        half = pairs.get((piece.device, piece.start_s, piece.end_s), 0) > 1
        top = _TOP + (_WORK / 2 if half and piece.kind != "F" else 0.0)
        height = _WORK / 2 if half else _WORK
        order = piece.direction if piece.direction else chunks[piece.device].index(piece.stage)
        shade = opacity[min(order, len(opacity) - 1)]
        key = (piece.device, top, height, WORK[piece.kind], shade)
        bars.setdefault(key, []).append((piece.start_s, piece.end_s - piece.start_s))
        if numbered and piece.end_s - piece.start_s == longest[_action(piece)]:
            _number(axes, piece, top + height / 2, window, shade, half=half)
    for device, lane in enumerate(lanes):
        axes.barh(device + _TOP + _WORK / 2, end - begin, left=begin, height=_WORK, color=light("idle"))
        for spans, top, height, colour in (
            (lane.optimizer, _TOP, _WORK, OPTIMIZER),
            (lane.messages, _TOP + _WORK + 0.02, _LANE, AXES["pp"]),
            (lane.data, _TOP + _WORK + 0.02 + _LANE, _LANE, AXES["dp"]),
        ):
            inside = [span for span in spans if span[0] < end and sum(span) > begin]
            bars.setdefault((device, top, height, colour, 1.0), []).extend(inside)
    drawn_as_pixels = sum(map(len, bars.values())) > MANY
    for (device, top, height, colour, shade), spans in bars.items():
        if not spans:
            continue
        patch = PathPatch(_rectangles(spans, device + top, height), facecolor=light(colour), alpha=shade)
        patch.set(linewidth=0, rasterized=drawn_as_pixels)
        axes.add_artist(patch)  # unlike a patch, it leaves the limits alone, which are known
    axes.set(xlim=window, ylim=(devices - 0.4, -0.6), xlabel="time, s", ylabel="stage")
    axes.set_yticks(range(0, devices, -(-devices // MOST_LABELS)))
    bare(axes)


def _rectangles(spans: Sequence[Span], top: float, height: float) -> Path:
    """Bars of one row as one shape: a picture of thousands stays small."""
    starts, lengths = np.array(spans, dtype=float).reshape(-1, 2).T
    x = np.stack((starts, starts + lengths, starts + lengths, starts, starts), axis=1)
    y = np.broadcast_to([top, top, top + height, top + height, top], x.shape)
    corners = np.stack((x, y), axis=2).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(spans))
    return Path(corners, codes)


def _chunks(work: Sequence[Work]) -> dict[int, list[int]]:
    """The virtual stages of each device, first one first."""
    found: dict[int, set[int]] = {}
    for piece in work:
        found.setdefault(piece.device, set()).add(piece.stage)
    return {device: sorted(stages) for device, stages in found.items()}


def _longest(work: Sequence[Work]) -> dict[_Action, float]:
    """The length of each action's longest piece."""
    found: dict[_Action, float] = {}
    for piece in work:
        key = _action(piece)
        found[key] = max(found.get(key, 0.0), piece.end_s - piece.start_s)
    return found


def _action(piece: Work) -> _Action:
    return piece.kind, piece.stage, piece.microbatch, piece.direction


def _pairs(work: Sequence[Work]) -> dict[tuple[int, float, float], int]:
    """How many pieces have the same times: a forward and a backward that run beside each other."""
    found: dict[tuple[int, float, float], int] = {}
    for piece in work:
        key = (piece.device, piece.start_s, piece.end_s)
        found[key] = found.get(key, 0) + 1
    return found


def _number(axes: Axes, piece: Work, middle: float, window: Span, shade: float, *, half: bool) -> None:
    """The microbatch, where it fits."""
    begin, end = max(piece.start_s, window[0]), min(piece.end_s, window[1])
    if (end - begin) / (window[1] - window[0]) < 0.011 * len(str(piece.microbatch)):
        return
    axes.text(
        (begin + end) / 2,
        piece.device + middle,
        str(piece.microbatch),
        ha="center",
        va="center_baseline",
        fontsize=5 if half else 6.5,
        color=ink_on(WORK[piece.kind], shade),
        clip_on=True,
        in_layout=False,
    )


def _legend(figure: Figure, work: Sequence[Work], lanes: Sequence[_Lanes]) -> None:
    kinds = {piece.kind for piece in work}
    handles = [Patch(color=light(WORK[kind]), label=WORK_NAMES[kind]) for kind in WORK if kind in kinds]
    handles.append(Patch(color=light("idle"), label="idle"))
    for name, colour, there in (
        ("messages between stages", AXES["pp"], any(lane.messages for lane in lanes)),
        ("data parallel", AXES["dp"], any(lane.data for lane in lanes)),
        ("optimizer", OPTIMIZER, any(lane.optimizer for lane in lanes)),
    ):
        if there:
            handles.append(Patch(color=light(colour), label=name))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles) if len(handles) < 8 else 4)
