"""The screen of ``stepcast run``: bars and colours on a terminal, the same facts as plain text elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from reports.better_hardware import HEADS, NOTE, TITLE, gains
from reports.causes import causes
from reports.headline import comparisons, facts, headline, remarks, remedy, title, verdict
from reports.losses import losses
from reports.quantities import gibibytes, percent, percentages, seconds
from reports.screen import is_plain, make_console, show

if TYPE_CHECKING:
    from simulator.result import Result
    from simulator.spec.run import RunSpec

KIND_COLOURS = {
    "compute": "cyan",
    "communication": "dark_orange",
    "bubble": "bright_black",
    "jitter": "magenta3",
    "optimizer": "magenta",
    "host": "yellow",
    "other": "yellow",
}
MEMORY_COLOURS = {
    "weights": "cyan",
    "gradients": "blue",
    "optimizer": "magenta",
    "activations": "green",
    "buffers": "yellow",
}
VERDICTS = {
    "fits": ("fits", "green"),
    "may not fit": ("MAY NOT FIT", "bold yellow"),
    "does not fit": ("DOES NOT FIT", "bold red"),
}
MOST_STAGES = 16  # rows of the memory table; more are thinned out around the fullest stage


def print_result(result: Result, run: RunSpec, console: Console | None = None) -> None:
    """Print everything a reader of one prediction needs, top to bottom in order of interest."""
    console = console or make_console()
    plain = is_plain(console)
    sections: list[RenderableType] = [_headline(result, run, plain)]
    sections += _section("From peak to MFU", _waterfall(result, plain))
    sections += _section("Where the step goes", _breakdown(result, plain))
    sections += _section(_memory_title(result), _memory(result, plain))
    if remedies := result.memory.get("remedies"):
        sections += _section("To make it fit", _points([remedy(each) for each in remedies], "•", ""))
    if result.what_if:
        sections += _section(TITLE, _what_if(result, run))
    if run.published is not None:
        sections += _section("Published", _published(result, run))
    if result.choices:
        sections += _section("Chosen", _points(result.choices, "•", ""))
    if run.assumptions:
        sections += _section("Assumed", _points(run.assumptions, "•", ""))
    if result.warnings:
        sections += _section("Warnings", _points(result.warnings, "!", "yellow"))
    sections += ["", _footer(result)]
    show(console, *sections)


def _section(title: str | Text, body: RenderableType) -> list[RenderableType]:
    heading = Text(title, style="bold") if isinstance(title, str) else title
    return ["", heading, Padding(body, (0, 0, 0, 2))]


def _headline(result: Result, run: RunSpec, plain: bool) -> RenderableType:
    """What was simulated, and the four numbers people ask for."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for label, value, remark in headline(result, run):
        table.add_row(Text(label, style="dim"), Text(value, style="bold"), Text(remark, style="dim"))
    if plain:
        return Group(
            Text(title(run)), *(Text(f"  {fact}") for fact in facts(run)), "", Padding(table, (0, 0, 0, 2))
        )
    body = Group(*(Text(fact, style="dim") for fact in facts(run)), "", table)
    return Panel(
        body, title=Text(title(run), style="bold"), title_align="left", box=box.ROUNDED, padding=(0, 2)
    )


def _waterfall(result: Result, plain: bool) -> RenderableType:
    """One row per loss, each bar hanging where the one above it ended, down to the MFU."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=not plain)
    table.add_column(no_wrap=True)
    if not plain:
        table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    left = 1.0
    table.add_row("device peak", *([] if plain else [Bar(1.0, 0.0, 1.0, color="white")]), "100.0 %")
    for row in losses(result):
        end = left - row.share
        bar = [] if plain else [Bar(1.0, min(left, end), max(left, end), color=KIND_COLOURS[row.kind])]
        table.add_row(Text(row.words), *bar, Text(f"{row.printed} %"))
        left = end
    bar = [] if plain else [Bar(1.0, 0.0, result.mfu, color="white")]
    table.add_row(Text("MFU", style="bold"), *bar, Text(percent(result.mfu), style="bold"))
    return table


def _breakdown(result: Result, plain: bool) -> RenderableType:
    """One row per cause, each bar starting where the last one ended, so that together they fill the step."""
    rows = causes(result.breakdown_s)
    table = Table.grid(padding=(0, 2, 0, 0), expand=not plain)
    table.add_column(no_wrap=True)
    if not plain:
        table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    begin = 0.0
    for row, share in zip(rows, percentages([row.seconds for row in rows]), strict=True):
        end = begin + row.seconds
        bar = [] if plain else [Bar(result.step_time_s, begin, end, color=KIND_COLOURS[row.kind])]
        table.add_row(Text(row.words), *bar, Text(f"{share} %"), Text(seconds(row.seconds)))
        begin = end
    total: list[RenderableType] = [] if plain else [""]
    table.add_row(
        Text("step", style="bold"),
        *total,
        Text("100.0 %", style="bold"),
        Text(seconds(begin, 4), style="bold"),
    )
    return table


def _memory_title(result: Result) -> Text:
    memory: Mapping[str, Any] = result.memory
    peak, capacity = memory["peak_bytes"], memory["capacity_bytes"]
    title = Text("Memory per GPU", style="bold")
    used = f"  {gibibytes(peak)} of {gibibytes(capacity)} GiB at the fullest stage: "
    title.append(used, style="not bold")
    title.append(*VERDICTS[verdict(result)])
    return title


def _memory(result: Result, plain: bool) -> RenderableType:
    """One row per stage, in GiB; the bar's full width is the capacity (or the peak, where that is more)."""
    stages: Sequence[Mapping[str, float]] = result.memory["stages"]
    capacity = max(result.memory["capacity_bytes"], result.memory["peak_bytes"])
    table = Table.grid(padding=(0, 1, 0, 0), expand=not plain)
    table.add_column(justify="right", no_wrap=True)
    if not plain:
        table.add_column(ratio=1)
    for _ in range(1 + len(MEMORY_COLOURS)):
        table.add_column(justify="right", no_wrap=True)
    blank = [] if plain else [Text("")]
    heads = [Text(name, style=colour) for name, colour in MEMORY_COLOURS.items()]
    table.add_row(Text("stage", style="dim"), *blank, Text("peak", style="dim"), *heads)
    for index in _shown_stages(stages):
        if index is None:
            table.add_row(Text("…"))
            continue
        stage = stages[index]
        bar = [] if plain else [StackedBar([(stage[k], c) for k, c in MEMORY_COLOURS.items()], capacity)]
        parts = [Text(gibibytes(stage[name])) for name in MEMORY_COLOURS]
        fits = stage["peak_bytes"] <= result.memory["capacity_bytes"]
        peak = Text(gibibytes(stage["peak_bytes"]), style="bold" if fits else "bold red")
        table.add_row(Text(str(index)), *bar, peak, *parts)
    return table


def _shown_stages(stages: Sequence[Mapping[str, float]]) -> list[int | None]:
    """All stages of a short pipeline; of a long one the ends, and the fullest with its neighbours."""
    count = len(stages)
    if count <= MOST_STAGES:
        return list(range(count))
    fullest = max(range(count), key=lambda index: stages[index]["peak_bytes"])
    kept = sorted({0, 1, 2, fullest - 1, fullest, fullest + 1, count - 2, count - 1} & set(range(count)))
    shown: list[int | None] = []
    for before, index in zip([-1, *kept], kept, strict=False):
        shown += [index] if index == before + 1 else [None, index]
    return shown


class StackedBar:
    """Coloured segments end to end on a line; ``full`` is the value at the right edge."""

    def __init__(self, segments: Sequence[tuple[float, str]], full: float) -> None:
        self.segments = segments
        self.full = full

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Whole cells. Boundaries are rounded, not lengths: the total is never a cell off."""
        width = options.max_width
        done, value = 0, 0.0
        for size, colour in self.segments:
            value += size
            end = min(width, round(width * value / self.full)) if self.full else 0
            yield Segment("█" * (end - done), Style(color=colour))
            done = end
        yield Segment("·" * (width - done), Style(dim=True))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As wide as it may be."""
        return Measurement(4, options.max_width)


def _what_if(result: Result, run: RunSpec) -> RenderableType:
    """A line per figure of the hardware, the most useful first."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_row(*(Text(head, style="dim") for head in HEADS))
    for gain in gains(result, run):
        table.add_row(*map(Text, (gain.words, *gain.cells)))
    return Group(table, Text(NOTE, style="dim"))


def _published(result: Result, run: RunSpec) -> RenderableType:
    """What the run's source measured, beside the prediction."""
    rows = comparisons(result, run)
    points = _points(remarks(result, run), "", "dim")
    if not rows:
        return points
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    heads = ("predicted", "published", "deviation", "between p10 and p90")
    table.add_row("", *(Text(head, style="dim") for head in heads))
    for row in rows:
        table.add_row(*map(Text, row))
    return Group(table, points)


def _points(lines: Iterable[str], mark: str, style: str) -> RenderableType:
    """A list whose long lines are wrapped under themselves, not under the mark."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for line in lines:
        table.add_row(*([Text(mark, style=style)] if mark else []), Text(line, style=style))
    return table


def _footer(result: Result) -> RenderableType:
    """Where the prediction comes from."""
    facts = " · ".join(f"{key.replace('_', ' ')} {_short(value)}" for key, value in result.provenance.items())
    return Text(facts, style="dim")


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_short(item) for item in value)
    return str(value)
