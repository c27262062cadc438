"""``stepcast show schedule`` and ``show schedules``: pipeline schedules on their own, without a model."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

import typer

if TYPE_CHECKING:
    from simulator.schedule.assessment import Assessment
    from simulator.schedule.definition import Schedule
    from simulator.schedule.evaluate import Times
    from simulator.spec.errors import SpecError

STDOUT = Path("-")
AUTOMATIC = "automatic"
P, M = 4, 8  # devices and microbatches where none are given
LONGEST = 1e12  # of a time, in whatever unit
LARGEST = 2**18  # chunk-microbatches: seconds to lay out


class Asked(NamedTuple):
    """Devices, microbatches and chunks per device; None: not given."""

    p: int | None
    m: int | None
    v: int | None


Found: TypeAlias = "tuple[str, tuple[int, int, int], Assessment]"
"""A schedule's title, its devices, microbatches and chunks per device, and what it amounts to."""


def schedules(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write JSON to this file, - for stdout.")
    ] = None,
) -> None:
    """List the pipeline schedules: trade-off, bubble, memory and reference."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from simulator.schedule.registry import SCHEDULES

    fields = {"trade_off": "", "bubble": "bubble", "memory": "peak live", "reference": "reference"}
    if json_file is not None:
        facts = {s.name: {field: getattr(s, field) for field in fields} for s in SCHEDULES.values()}
        _write_json(facts, json_file)
        return
    console = Console(highlight=False)
    for s in SCHEDULES.values():
        table = Table.grid(padding=(0, 2))
        for field, heading in fields.items():
            if heading:
                table.add_row(Text(heading, style="dim"), Text(getattr(s, field)))
        console.print(Text(s.name, style="bold"), Text(s.trade_off), sep="  ")
        console.print(Padding(table, (0, 0, 1, 2)))
    console.print(
        "F, B (input gradient), W (weight gradient): a device's whole share of one microbatch. p devices, "
        "m microbatches, v chunks per device, device i from 0. Bubble: step time − m(F+B+W). Peak live: most "
        "chunk-microbatches whose forward has started and whose weight gradient has not finished.\n\n"
        f"{AUTOMATIC} searches a synchronous schedule for given times and memory; FILE.csv reads one "
        "in PyTorch's pipeline-order format."
    )


def schedule(
    name: Annotated[
        str,
        typer.Argument(
            help="A schedule (see 'stepcast show schedules'), automatic, or a CSV file of actions."
        ),
    ],
    p: Annotated[int | None, typer.Option("-p", help=f"Pipeline devices; {P} if left out.")] = None,
    m: Annotated[int | None, typer.Option("-m", help=f"Microbatches per step; {M} if left out.")] = None,
    v: Annotated[
        int | None, typer.Option("-v", help="Chunks per device; the schedule's own if left out.")
    ] = None,
    times: Annotated[
        str,
        typer.Option(
            help="F,B,W[,F&B] of a device's whole share of one microbatch; B is the input gradient."
        ),
    ] = "1,1,1",
    memory: Annotated[
        float | None,
        typer.Option(help="automatic: microbatches of activations that fit a device; p if left out."),
    ] = None,
    p2p: Annotated[float, typer.Option(help="Time of one message between devices.")] = 0.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write JSON to this file, - for stdout.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the timeline: .png, .svg or .pdf.")] = None,
) -> None:
    """Step time, bubble, peak activations and the timeline of one pipeline schedule."""
    cost = _parse_times(times, p2p)
    if memory is not None and (name != AUTOMATIC or not 0 < memory < inf):
        raise _wrong(
            "--memory", f"{memory:g}", "must be a number above 0, and belongs to the schedule automatic"
        )
    asked = Asked(p, m, v)
    if name.endswith(".csv"):
        title, (p, m, v), found = _of_file(Path(name), asked, cost)
    elif name == AUTOMATIC:
        title, (p, m, v), found = _searched(asked, cost, memory)
    else:
        title, (p, m, v), found = _named(name, asked, cost)
    if plot is not None:
        from reports.figures.canvas import save
        from reports.figures.schedule import schedule as chart

        heading = f"{title}   p = {p}, m = {m}" + (f", v = {v}" if v > 1 else "")
        save(chart(found, heading), plot)
    if json_file is not None:
        _write_json({"schedule": title, "p": p, "m": m, "v": v} | as_json(found, cost), json_file)
    else:
        _print_schedule(f"{title}   p = {p}, m = {m}, v = {v}", found)


def _of_file(file: Path, asked: Asked, cost: Times) -> Found:
    """A user's schedule, whose size is in the file."""
    from simulator.schedule.assessment import assess_orders
    from simulator.schedule.user_csv import read_orders

    user = read_orders(file)
    size = (user.devices, user.microbatches, user.chunks)
    for option, given, found in zip(("-p", "-m", "-v"), asked, size, strict=True):
        if given not in (None, found):
            raise _wrong(option, given, f"{file} has {found}", "leave it out")
    return file.name, size, assess_orders(user.orders, user.chunks, cost)


def _searched(asked: Asked, cost: Times, memory: float | None) -> Found:
    """The best schedule that is found for the times and the memory."""
    from rich.console import Console

    from simulator.schedule.assessment import assess_orders
    from simulator.schedule.automatic import search

    p, m, v = _checked_size(asked, 2 if asked.v is None else asked.v)
    chunks = (1, 2) if asked.v is None else (v,)
    with Console(stderr=True).status("searching: minutes for thousands of actions"):
        best = search(p, m, cost, p if memory is None else memory, chunks=chunks)
    return f"{AUTOMATIC} ({best.name})", (p, m, best.v), assess_orders(best.orders, best.v, cost)


def _named(name: str, asked: Asked, cost: Times) -> Found:
    """One of the schedules of :data:`~simulator.schedule.registry.SCHEDULES`."""
    from simulator.schedule.assessment import assess

    chosen = _find(name)
    p, m, v = _checked_size(asked, chosen.natural_v if asked.v is None else asked.v)
    return chosen.name, (p, m, v), assess(chosen, p, m, v, cost)


def _checked_size(asked: Asked, v: int) -> tuple[int, int, int]:
    """The numbers that were given or are taken, above zero, and not more than can be laid out."""
    p, m = P if asked.p is None else asked.p, M if asked.m is None else asked.m
    for option, value in (("-p", p), ("-m", m), ("-v", v)):
        if value < 1:
            raise _wrong(option, value, "must be at least 1")
    if p * m * v > LARGEST:
        rule = (
            f"{p * m * v:,} chunk-microbatches (-p × -m × -v) are more than the {LARGEST:,} that are laid out"
        )
        raise _wrong("-p, -m, -v", f"{p}, {m}, {v}", rule)
    return p, m, v


def _wrong(option: str, value: object, rule: str, suggestion: str = "") -> SpecError:
    from simulator.spec.errors import Problem, SpecError

    return SpecError(Problem(key_path=option, value=value, rule=rule, suggestion=suggestion))


def as_json(found: Assessment, times: Times) -> dict[str, Any]:
    """The figures of a schedule and its actions, one string per device."""
    from simulator.schedule.notation import format_action

    return {
        "times": {"F": times.F, "B": times.B, "W": times.W, "pair": times.pair, "p2p": times.p2p},
        "step_time": found.step_time,
        "bubble": found.bubble,
        "bubble_fraction": found.bubble_fraction,
        "makespan": found.timeline.makespan,
        "span_bubble": found.timeline.span_bubble,
        "peak_activations": found.peak_activations,
        "weight_versions": found.weight_versions,
        "actions": [" ".join(map(format_action, order)) for order in found.timeline.orders],
    }


def _print_schedule(title: str, found: Assessment) -> None:
    from rich.console import Console
    from rich.text import Text

    from reports.quantities import digits, percent
    from simulator.cli.schedule_gantt import gantt, natural_width

    console = Console(highlight=False)
    colour = console.is_terminal and not console.no_color and not console.is_dumb_terminal
    facts = [
        ("step time", digits(found.step_time, 4)),
        ("bubble", f"{digits(found.bubble, 4)} ({percent(found.bubble_fraction)} of the step)"),
    ]
    if found.timeline.span_bubble < found.bubble:
        facts.append(("bubble in a device's own span", digits(found.timeline.span_bubble, 4)))
    facts.append(("peak live activations", _runs(found.peak_activations)))
    if max(found.weight_versions) > 1:
        facts.append(("weight versions", _runs(found.weight_versions)))
    width = console.width if console.is_terminal else natural_width(found.timeline)
    lines = [Text(title, style="bold"), Text(), *gantt(found.timeline, width, colour=colour), Text()]
    lines += [Text(f"{what + ':':<31}{value}") for what, value in facts]
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)  # there, only the legend may be too long


def _runs(values: list[int]) -> str:
    """One number per device, or one for all."""
    return f"{values[0]} on every device" if len(set(values)) == 1 else ", ".join(map(str, values))


def _find(name: str) -> Schedule:
    from simulator.schedule.registry import SCHEDULES
    from simulator.spec.errors import nearest

    wanted = name.casefold()
    if wanted not in SCHEDULES:
        known = [*SCHEDULES, AUTOMATIC]
        raise _wrong(
            "schedule", name, f"one of {', '.join(known)}, or a file that ends in .csv", nearest(name, known)
        )
    return SCHEDULES[wanted]


def _parse_times(text: str, p2p: float) -> Times:
    from simulator.schedule.evaluate import Times

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (3, 4) or not all(0 <= n <= LONGEST for n in numbers) or not sum(numbers[:3]):
        rule = f"F,B,W or F,B,W,F&B: numbers from 0 to {LONGEST:g}, not all 0"
        raise _wrong("--times", text, rule, "1,1,1")
    if not 0 <= p2p <= LONGEST:
        raise _wrong("--p2p", f"{p2p:g}", f"must be a number from 0 to {LONGEST:g}")
    pair = numbers[3] if len(numbers) == 4 else None
    return Times(F=numbers[0], B=numbers[1], W=numbers[2], pair=pair, p2p=p2p)


def _write_json(facts: dict[str, Any], file: Path) -> None:
    from reports.files import replacing

    text = json.dumps(facts, indent=2, ensure_ascii=False)
    if file == STDOUT:
        typer.echo(text)
        return
    with replacing(file) as stream:
        stream.write(text + "\n")
