"""The screen of ``stepcast sweep``: what was found, in what order, and why the others lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.columns import table
from reports.headline import remedy
from reports.quantities import digits, gibibytes, percent, scaled, seconds
from reports.screen import make_console, show
from simulator.sweep.compare import differences, main_losses, pareto_front
from simulator.sweep.evaluation import NO_ROOM
from simulator.sweep.remedies import remedies

if TYPE_CHECKING:
    from simulator.sweep.evaluation import Evaluation
    from simulator.sweep.search import Outcome

SHORT_NAMES = {
    "micro_batch_size": "mbs",
    "global_batch_size": "gbs",
    "seq_length": "seq",
    "recompute": "recompute",
    "overlap_grad_reduce": "grad overlap",
    "overlap_param_gather": "gather overlap",
    "tp_overlap": "TP overlap",
}
FIGURES = ("step", "tokens/s", "MFU", "bubble", "GiB")
NARROW = 110  # columns; below, a table of layouts has no room for reasons
WIDTH = 140  # columns where no terminal sets a width: a table of layouts is wide


def print_outcome(outcome: Outcome, top: int = 10, console: Console | None = None) -> None:
    """Print the ranked layouts, the Pareto front and what was left out."""
    console = console or make_console(WIDTH)
    sections: list[RenderableType] = [_head(outcome)]
    if outcome.best is not None:
        sections += _section(
            f"Best {min(top, len(outcome.ranked))} of {len(outcome.ranked):,}",
            _ranked(outcome, top, console.width - 2),
        )
        sections += _section("Fastest for their memory", _front(outcome, console.width - 2))
        sections += _spending(outcome)
    sections += _section("Left out", _left_out(outcome))
    show(console, *sections)


def print_explanation(outcome: Outcome, console: Console | None = None) -> None:
    """Print the layout that was asked for beside the best one: its settings, its figures, and why it cannot
    run or where its step is longer."""
    console = console or make_console(WIDTH)
    best, chosen = outcome.best, outcome.explained
    if chosen is None:
        raise ValueError("no layout was asked for")
    sections: list[RenderableType] = [Text(_line(outcome, chosen), style="bold"), _figures(chosen)]
    if chosen.status != "ok":
        sections += ["", Text(_why_not(chosen))]
    if chosen.message == NO_ROOM:
        helps = [remedy(each.to_dict()) for each in remedies(outcome.layouts[chosen.number].run)]
        nothing = "no change of recompute, micro batch, sharding or parallelism does, nor any two of them"
        sections += _section("To make it fit", Text("\n".join(helps) or nothing))
    if best is not None and chosen.step_time_s:
        sections += _section(f"Against the best, {_line(outcome, best)}", _waterfall(chosen, best))
    show(console, *sections)


def label(value: Any) -> str:
    """A value of an axis in a few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        modules = value.get("modules")
        shown = [label(v) for k, v in value.items() if k != "modules"]
        return " ".join(shown) + (f" {label(modules)}" if modules else "")
    if isinstance(value, list | tuple):
        return "+".join(map(label, value))
    return str(value)


def axis_names(outcome: Outcome) -> list[str]:
    """Column heads of the axes; the whole key path where last words are alike."""
    axes = outcome.sweep.space.axes
    last = [axis.path[-1] for axis in axes]
    return [
        SHORT_NAMES.get(name, name.replace("_", " ")) if last.count(name) == 1 else axis.key
        for name, axis in zip(last, axes, strict=True)
    ]


def reason(slower: Evaluation, best: Evaluation) -> str:
    """Where a layout loses against the best, in a few words."""
    losses = main_losses(slower, best)
    return ", ".join(f"{cause(loss.cause)} +{seconds(loss.seconds, 2)}" for loss in losses)


def cause(category: str) -> str:
    """A category of the breakdown in words."""
    return category.replace("_", " ")


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return ["", Text(title, style="bold"), Padding(body, (0, 0, 0, 2))]


def _head(outcome: Outcome) -> RenderableType:
    census = outcome.census
    name = outcome.sweep.name
    state = "" if outcome.complete else " · interrupted: --resume continues"
    return Text(
        f"{name}: {census.combinations:,} combinations, {census.legal:,} legal, "
        f"{outcome.evaluated:,} evaluated now ({outcome.evaluated_total:,} in all) · "
        f"objective {outcome.sweep.settings.objective} · search {outcome.sweep.settings.search}{state}",
        style="bold",
    )


def _ranked(outcome: Outcome, top: int, room: int) -> RenderableType:
    """The best layouts; on a narrow screen the reasons why the others are slower stand below."""
    best = outcome.ranked[0]
    heads = ["#", "id", *axis_names(outcome), *FIGURES, "slower", "because of"]
    rows = []
    for place, evaluation in enumerate(outcome.ranked[:top], 1):
        slower = f"{100 * (evaluation.step_time_s / best.step_time_s - 1):+.1f} %"
        why = ("", "") if evaluation is best else (slower, reason(evaluation, best))
        names = (str(place), str(evaluation.number), *map(label, evaluation.labels))
        rows.append([*names, *cells(evaluation), *why])
    narrow = room < NARROW
    if narrow:
        reasons = table(("#", "slower because of"), [(row[0], row[-1]) for row in rows[1:]], room)
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    left = {*range(2 + len(outcome.sweep.space.axes)), len(heads) if narrow else len(heads) - 1}
    found = table(heads, rows, room, text=left)
    found.rows[0].style = "bold green"
    return Group(found, "", reasons) if narrow and len(rows) > 1 else found


def cells(evaluation: Evaluation) -> Sequence[str]:
    """Its figures, under the heads :data:`FIGURES`."""
    return (
        seconds(evaluation.step_time_s, 4),
        scaled(evaluation.tokens_per_s),
        percent(evaluation.mfu),
        percent(evaluation.bubble_fraction),
        gibibytes(evaluation.peak_bytes),
    )


def _grid() -> Table:
    return Table.grid(padding=(0, 2, 0, 0))


def _front(outcome: Outcome, room: int) -> RenderableType:
    """Step time against memory."""
    front = pareto_front(outcome.ranked, (lambda e: e.step_time_s, lambda e: e.peak_bytes))
    heads = ("id", *axis_names(outcome), *FIGURES)
    rows = [(str(e.number), *map(label, e.labels), *cells(e)) for e in front[:8]]
    return table(heads, rows, room, text=range(1 + len(outcome.sweep.space.axes)))


def _spending(outcome: Outcome) -> list[RenderableType]:
    """What the winner costs, where prices are known."""
    best = outcome.ranked[0]
    run = outcome.layouts[best.number].run
    spent = outcome.sweep.objective.spending(run, best.step_time_s)
    budget = outcome.sweep.settings.cost.tokens
    facts = []
    if spent.tokens_per_dollar:
        facts.append(f"{scaled(spent.tokens_per_dollar)} tokens per $")
    if spent.tokens_per_kwh:
        facts.append(f"{scaled(spent.tokens_per_kwh)} tokens per kWh")
    if budget:
        facts.append(f"{scaled(budget)} tokens take {digits(spent.days)} days")
        if spent.dollars:
            facts.append(f"${scaled(spent.dollars)}")
        facts.append(f"{scaled(spent.kwh)} kWh".strip())
    return _section("The best one costs", Text(" · ".join(facts))) if facts else []


def _left_out(outcome: Outcome) -> RenderableType:
    census = outcome.census
    found = _grid()
    rows = [(rule, number, census.examples.get(rule, "")) for rule, number in census.illegal.most_common()]
    rows += [(f"infeasible: {why}", number, "") for why, number in outcome.infeasible.most_common()]
    rows += [(f"failed: {why}", number, "") for why, number in outcome.failed.most_common()]
    if not rows:
        return Text("nothing")
    for what, number, example in rows:
        found.add_row(
            Text(f"{number:,}"), Text(what), Text(example, style="dim", overflow="ellipsis", no_wrap=True)
        )
    return found


def _line(outcome: Outcome, evaluation: Evaluation) -> str:
    settings = " · ".join(
        f"{name} {label(value)}" for name, value in zip(axis_names(outcome), evaluation.labels, strict=True)
    )
    return f"layout {evaluation.number}: {settings}"


def _figures(evaluation: Evaluation) -> RenderableType:
    if not evaluation.step_time_s:
        return Text("")
    return Text(" · ".join(f"{name} {cell}" for name, cell in zip(FIGURES, cells(evaluation), strict=True)))


def _why_not(evaluation: Evaluation) -> str:
    """Why a layout is left out."""
    told = f"{evaluation.status}: {evaluation.message}"
    if evaluation.message != NO_ROOM:
        return told
    needs, room = gibibytes(evaluation.peak_bytes), gibibytes(evaluation.capacity_bytes)
    return f"{told}: it needs {needs} of {room} GiB; its step is simulated as if there were enough"


def _waterfall(slower: Evaluation, best: Evaluation) -> RenderableType:
    """From the step time of the best to that of the layout, cause by cause."""
    found = _grid()
    found.add_row(Text("best step"), Text(""), Text(seconds(best.step_time_s, 4)))
    at = best.step_time_s
    for name, lost in differences(slower, best):
        if abs(lost) < 1e-4 * best.step_time_s:
            continue
        at += lost
        sign = "+" if lost > 0 else "−"
        found.add_row(Text(cause(name)), Text(f"{sign}{seconds(abs(lost))}"), Text(seconds(at, 4)))
    found.add_row(Text("this step"), Text(""), Text(seconds(slower.step_time_s, 4)))
    return found
