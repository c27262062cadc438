"""A schedule's timeline in the terminal: one row per device, one block per action."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from rich.text import Text

from simulator.schedule.actions import Action, Kind
from simulator.schedule.evaluate import Timeline

# background per kind: first chunk, later chunks
_STYLES = {
    Kind.F: ("black on #7aa6da", "black on #b3cdea"),
    Kind.B: ("black on #8cc27a", "black on #bfdfb4"),
    Kind.I: ("black on #8cc27a", "black on #bfdfb4"),
    Kind.W: ("black on #e8b25c", "black on #f2d5a3"),
}
_PAIR_STYLE = "black on #b39ddb"
_LEGEND = {
    Kind.F: "F forward",
    Kind.B: "B backward",
    Kind.I: "I input gradient",
    Kind.W: "W weight gradient",
}
_IDLE = "·"
_MOST_DEVICES = 32


def gantt(timeline: Timeline, width: int, *, colour: bool) -> list[Text]:
    """One line per device and a legend, in at most ``width`` columns.

    A block shows its kind and microbatch where they fit. What does not fit at one column per action is cut
    off at the end, and the legend says so.
    """
    devices = len(timeline.orders)
    label = len(str(devices - 1)) + 1
    scale, shown_time = _scale(timeline, width - label)
    lines = []
    for device in range(min(devices, _MOST_DEVICES)):
        line = Text(f"{device:>{label - 1}} ", style="bold" if colour else "")
        lines.append(line.append_text(_row(timeline, device, scale, shown_time, colour)))
    return [*lines, _legend(timeline, label, shown_time, colour)]


def _legend(timeline: Timeline, label: int, shown_time: float, colour: bool) -> Text:
    actions = [action for order in timeline.orders for action in order]
    legend = Text(" " * label)
    for kind in sorted({a.kind for action in actions for a in (action, action.partner) if a}):
        legend.append(_LEGEND[kind], style=_STYLES[kind][0] if colour else "").append("  ")
    if any(action.partner for action in actions):
        legend.append("F&B a pair that overlaps", style=_PAIR_STYLE if colour else "").append("  ")
    legend.append(f"{_IDLE} idle")
    if len(timeline.orders) > _MOST_DEVICES:
        legend.append(f"  (devices 0 to {_MOST_DEVICES - 1} of {len(timeline.orders)})")
    if shown_time < timeline.makespan:
        legend.append(f"  (the first {shown_time / timeline.makespan:.0%} of the time)")
    return legend


def natural_width(timeline: Timeline) -> int:
    """Columns that let every block show its kind and microbatch."""
    return ceil(_wanted_scale(timeline)[1] * timeline.makespan) + len(str(len(timeline.orders))) + 1


def _wanted_scale(timeline: Timeline) -> tuple[float, float]:
    """Columns per unit of time: the least that gives every action one, and what its name needs."""
    blocks = [
        (end - start, len(_name(action)))
        for order, starts, ends in zip(timeline.orders, timeline.start, timeline.end, strict=True)
        for action, start, end in zip(order, starts, ends, strict=True)
        if end > start
    ]
    least = max((1 / length for length, _ in blocks), default=1.0)
    wanted = max(((letters + 1) / length for length, letters in blocks), default=1.0)
    return least, wanted


def _scale(timeline: Timeline, width: int) -> tuple[float, float]:
    """Columns per unit of time, and how much time then fits into ``width``."""
    least, wanted = _wanted_scale(timeline)
    scale = max(least, min(wanted, width / timeline.makespan)) if timeline.makespan else 1.0
    return scale, min(timeline.makespan, width / scale)


def _row(timeline: Timeline, device: int, scale: float, shown_time: float, colour: bool) -> Text:
    text = Text()
    for action, begin, end in _blocks(timeline, device, scale, shown_time):
        if action is None:
            text.append(_IDLE * (end - begin), style="dim" if colour else "")
            continue
        text.append(_label(action, end - begin), style=_style(action, len(timeline.orders)) if colour else "")
    return text


def _blocks(
    timeline: Timeline, device: int, scale: float, shown_time: float
) -> Iterator[tuple[Action | None, int, int]]:
    """(action or None for idle, first column, column after the last)."""
    column, last = 0, round(shown_time * scale)
    for action, start, end in zip(
        timeline.orders[device], timeline.start[device], timeline.end[device], strict=True
    ):
        begin, stop = (min(last, round(t * scale)) for t in (start, end))
        if begin > column:
            yield None, column, begin
        if stop > begin:
            yield action, begin, stop
        column = max(column, stop)
    if last > column:
        yield None, column, last


def _label(action: Action, columns: int) -> str:
    name = _name(action)
    if len(name) > columns:
        name = "&" if action.partner else name[0]
    return name.ljust(columns)


def _name(action: Action) -> str:
    if action.partner is not None:
        return f"F{action.microbatch}&{action.partner.kind.name}{action.partner.microbatch}"
    return f"{action.kind.name}{action.microbatch}"


def _style(action: Action, devices: int) -> str:
    if action.partner is not None:
        return _PAIR_STYLE
    return _STYLES[action.kind][int(action.stage >= devices or action.direction > 0)]
