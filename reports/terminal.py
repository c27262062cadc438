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

from reports.quantities import digits, gibibytes, percent, percentages, scaled, seconds, seconds_between
from reports.screen import is_plain, make_console, show

if TYPE_CHECKING:
    from simulator.result import Result
    from simulator.spec.run import RunSpec

KIND_COLOURS = ("cyan", "dark_orange", "bright_black", "magenta", "yellow", "yellow")
MEMORY_COLOURS = {
    "weights": "cyan",
    "gradients": "blue",
    "optimizer": "magenta",
    "activations": "green",
    "buffers": "yellow",
}
MOST_STAGES = 16  # rows of the memory table; more are thinned out around the fullest stage


def print_result(result: Result, run: RunSpec, console: Console | None = None) -> None:
    """Print everything a reader of one prediction needs, top to bottom in order of interest."""
    console = console or make_console()
    plain = is_plain(console)
    sections: list[RenderableType] = [_headline(result, run, plain)]
    sections += _section("Where the step goes", _breakdown(result, plain))
    sections += _section(_memory_title(result), _memory(result, plain))
    if run.published is not None:
        sections += _section("Published", _published(result, run))
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
    title = run.name or run.model.name
    facts = _facts(run)
    low, high = result.step_time_interval_s
    peak = f"{digits(result.peak_flops / 1e12)} TFLOP/s"
    tiles = (
        ("Step time", seconds(result.step_time_s, 4), f"p10 – p90: {seconds_between(low, high)}"),
        (
            "Throughput",
            f"{scaled(result.tokens_per_s)} tokens/s",
            f"{digits(result.tokens_per_s_per_gpu)} per GPU",
        ),
        (
            "Model FLOPs",
            f"{digits(result.model_tflops_per_gpu)} TFLOP/s",
            f"per GPU ({result.flops_convention} counting)",
        ),
        ("MFU", percent(result.mfu), f"of {peak} (dense {run.training.precision} peak)"),
        ("HFU", percent(result.hfu), f"{digits(result.hardware_tflops_per_gpu)} TFLOP/s, recompute included"),
        ("Bubble", percent(result.bubble_fraction), "of the step: pipeline stages wait"),
    )
    table = Table.grid(padding=(0, 2, 0, 0))
    for label, value, remark in tiles:
        table.add_row(Text(label, style="dim"), Text(value, style="bold"), Text(remark, style="dim"))
    if plain:
        return Group(Text(title), *(Text(f"  {fact}") for fact in facts), "", Padding(table, (0, 0, 0, 2)))
    body = Group(*(Text(fact, style="dim") for fact in facts), "", table)
    return Panel(body, title=Text(title, style="bold"), title_align="left", box=box.ROUNDED, padding=(0, 2))


def _facts(run: RunSpec) -> list[str]:
    """Model and machine; layout; batch."""
    p, t, cluster = run.parallelism, run.training, run.cluster
    sizes = {"TP": p.tp, "PP": p.pp, "VP": p.vp, "CP": p.cp, "EP": p.ep, "DP": run.dp}
    layout = " · ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one GPU"
    if p.pp > 1:
        layout += f" · {run.schedule}"
    batch = f"{t.global_batch_size:,} sequences of {t.seq_length:,} tokens"
    microbatches = f"{run.microbatches} microbatches of {t.micro_batch_size}"
    return [
        f"{run.model.name} on {run.gpus:,} × {cluster.device.title or cluster.device.name} ({cluster.name})",
        layout,
        f"{batch} · {microbatches} · {t.precision}",
    ]


def _breakdown(result: Result, plain: bool) -> RenderableType:
    """One row per cause, each bar starting where the last one ended, so that together they fill the step."""
    rows = sorted(
        ((label, value) for label, value in result.breakdown_s.items() if value > 0),
        key=lambda row: (_kind(row[0]), -row[1]),
    )
    table = Table.grid(padding=(0, 2, 0, 0), expand=not plain)
    table.add_column(no_wrap=True)
    if not plain:
        table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    begin = 0.0
    for (label, value), share in zip(rows, percentages([value for _, value in rows]), strict=True):
        end = begin + value
        bar = [] if plain else [Bar(result.step_time_s, begin, end, color=KIND_COLOURS[_kind(label)])]
        table.add_row(Text(_cause(label)), *bar, Text(f"{share} %"), Text(seconds(value)))
        begin = end
    total: list[RenderableType] = [] if plain else [""]
    table.add_row(
        Text("step", style="bold"),
        *total,
        Text("100.0 %", style="bold"),
        Text(seconds(begin, 4), style="bold"),
    )
    return table


def _cause(label: str) -> str:
    """The label in words; communication in the breakdown is the exposed part of it."""
    words = label.replace("_", " ")
    return f"exposed {words}" if _kind(label) == 1 and not words.startswith("exposed") else words


def _kind(label: str) -> int:
    """Where a cause stands in the table: compute, communication, bubble, optimizer, host, the rest."""
    first = label.partition("_")[0]
    if first in ("exposed", "tp", "cp", "ep", "pp", "dp"):
        return 1
    return {"bubble": 2, "optimizer": 3, "host": 4, "other": 5}.get(first, 0)


def _memory_title(result: Result) -> Text:
    memory: Mapping[str, Any] = result.memory
    peak, capacity = memory["peak_bytes"], memory["capacity_bytes"]
    title = Text("Memory per GPU", style="bold")
    used = f"  {gibibytes(peak)} of {gibibytes(capacity)} GiB at the fullest stage: "
    title.append(used, style="not bold")
    title.append(
        "fits" if memory["fits"] else "DOES NOT FIT", style="green" if memory["fits"] else "bold red"
    )
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


def _published(result: Result, run: RunSpec) -> RenderableType:
    """What the run's source measured, beside the prediction."""
    published = run.published
    if published is None:
        return ""
    pairs = (
        ("step time", result.step_time_s, published.step_time_s, seconds),
        ("model TFLOP/s per GPU", result.model_tflops_per_gpu, published.model_tflops_per_gpu, digits),
        ("MFU", result.mfu, published.mfu, percent),
    )
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    heads = ("predicted", "published", "deviation", "between p10 and p90")
    table.add_row("", *(Text(head, style="dim") for head in heads))
    low, high = result.step_time_interval_s
    for label, predicted, measured, shown in pairs:
        if measured:
            ratio = predicted / measured
            step_s = result.step_time_s * (1 / ratio if label == "step time" else ratio)  # as published
            within = "yes" if low <= step_s <= high else "no"
            cells = (label, shown(predicted), shown(measured), f"{100 * (ratio - 1):+.1f} %", within)
            table.add_row(*(Text(cell) for cell in cells))
    remarks = [f"source: {published.source}"]
    if published.flops_convention:
        remarks.append(f"published FLOPs: {published.flops_convention}; predicted: {result.flops_convention}")
    if published.notes:
        remarks.append(published.notes)
    return Group(table, _points(remarks, "", "dim"))


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
