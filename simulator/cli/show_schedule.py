"""``stepcast show schedule`` and ``show schedules``: pipeline schedules on their own, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from simulator.schedule.assessment import Assessment
    from simulator.schedule.definition import Schedule
    from simulator.schedule.evaluate import Times

STDOUT = Path("-")
AUTOMATIC = "automatic"


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
    p: Annotated[int, typer.Option("-p", help="Pipeline devices.")] = 4,
    m: Annotated[int, typer.Option("-m", help="Microbatches per step.")] = 8,
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
    from simulator.schedule.assessment import assess, assess_orders
    from simulator.schedule.automatic import search
    from simulator.schedule.user_csv import read_orders

    cost = _parse_times(times, p2p)
    if name.endswith(".csv"):
        user = read_orders(Path(name))
        p, m, v = user.devices, user.microbatches, user.chunks
        title, found = Path(name).name, assess_orders(user.orders, v, cost)
    elif name == AUTOMATIC:
        best = search(p, m, cost, p if memory is None else memory, chunks=(1, 2) if v is None else (v,))
        v, title, found = best.v, f"{AUTOMATIC} ({best.name})", assess_orders(best.orders, best.v, cost)
    else:
        chosen = _find(name)
        v = chosen.natural_v if v is None else v
        title, found = chosen.name, assess(chosen, p, m, v, cost)
    if plot is not None:
        from reports.figures.canvas import save
        from reports.figures.schedule import schedule as chart

        heading = f"{title}   p = {p}, m = {m}" + (f", v = {v}" if v > 1 else "")
        save(chart(found, heading), plot)
    if json_file is not None:
        _write_json({"schedule": title, "p": p, "m": m, "v": v} | as_json(found, cost), json_file)
    else:
        _print_schedule(f"{title}   p = {p}, m = {m}, v = {v}", found)


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
        console.print(line, soft_wrap=True)


def _runs(values: list[int]) -> str:
    """One number per device, or one for all."""
    return f"{values[0]} on every device" if len(set(values)) == 1 else ", ".join(map(str, values))


def _find(name: str) -> Schedule:
    from simulator.schedule.registry import SCHEDULES
    from simulator.spec.errors import Problem, SpecError, nearest

    if name not in SCHEDULES:
        raise SpecError(
            Problem(
                key_path="schedule",
                value=name,
                rule=f"one of {', '.join(SCHEDULES)}, {AUTOMATIC}, or a file that ends in .csv",
                suggestion=nearest(name, [*SCHEDULES, AUTOMATIC]),
            )
        )
    return SCHEDULES[name]


def _parse_times(text: str, p2p: float) -> Times:
    from simulator.schedule.evaluate import Times
    from simulator.spec.errors import Problem, SpecError

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if (
        len(numbers) not in (3, 4)
        or not all(0 <= n < float("inf") for n in [*numbers, p2p])
        or not sum(numbers[:3])
    ):
        raise SpecError(
            Problem(
                key_path="--times, --p2p",
                value=f"{text}, {p2p:g}",
                rule="times are F,B,W or F,B,W,F&B: finite numbers ≥ 0, not all 0, as in 1,1,1",
            )
        )
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
