"""The screen of ``stepcast validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.screen import is_plain, make_console, show
from reports.validation_scores import FIGURES, NAMES, TITLES, percent, score_lines, worst

if TYPE_CHECKING:
    from simulator.validation.report import CrossValidation, Validation

WIDTH = 130
WORST = 10


def print_validation(validation: Validation, console: Console | None = None) -> None:
    """Print the table by source, device and kind of model, the worst rows, and what is not predicted."""
    console = console or make_console(WIDTH)
    plain = is_plain(console)
    sections: list[RenderableType] = [Text(TITLES[validation.protocol], style="bold")]
    if validation.counted:
        sections += [Padding(_table(validation, plain), (0, 0, 0, 2)), "", _worst(validation, plain)]
    else:
        sections.append("  no row of high confidence is predicted")
    sections += [*_memory(validation), *_choices(validation), "", _reasons(validation, plain), ""]
    show(console, *sections)


def print_cross_validation(crossed: CrossValidation, console: Console | None = None) -> None:
    """Print the tables of every protocol, and the factors of all rows together."""
    console = console or make_console(WIDTH)
    plain = is_plain(console)
    for validation in crossed.protocols.values():
        sections: list[RenderableType] = [Text(TITLES[validation.protocol], style="bold")]
        if validation.counted:
            sections += [Padding(_table(validation, plain), (0, 0, 0, 2)), "", _worst(validation, plain), ""]
        show(console, *sections)
    heading = Text(
        "Sustained factors fitted on all rows: to ship in a kernel profile, not a score", style="bold"
    )
    show(console, heading, Padding(_factors(crossed, plain), (0, 0, 0, 2)), "")


def _factors(crossed: CrossValidation, plain: bool) -> Table:
    table = _plain_table(plain)
    for name in ("device", "precision"):
        table.add_column(name)
    for name in ("factor", "rows", "groups", "of single groups"):
        table.add_column(name, justify="right")
    for f in crossed.class_factors:
        low, high = f.spread
        table.add_row(
            *(f.device, f.precision, f"{f.factor:.3f}", str(f.rows), str(f.groups), f"{low:.2f} – {high:.2f}")
        )
    return table


def _plain_table(plain: bool) -> Table:
    return Table(box=None if plain else box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)


def _table(validation: Validation, plain: bool) -> Table:
    table = _plain_table(plain)
    for name in NAMES:
        table.add_column(name)
    for name in FIGURES:
        table.add_column(name, justify="right")
    for block in score_lines(validation):
        table.add_section()
        for line in block:
            table.add_row(*line.names, *line.figures)
    return table


def _worst(validation: Validation, plain: bool) -> RenderableType:
    table = _plain_table(plain)
    for name, justify in (("worst rows", "left"), ("measured s", "right"), ("predicted s", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("error %", justify="right")
    table.add_column("note")
    for p in worst(validation, WORST):
        note = "factor of other devices" if p.row.run_id in validation.transferred else ""
        table.add_row(
            p.row.run_id, f"{p.measured_s:.4g}", f"{p.predicted_s:.4g}", f"{100 * p.error:+.1f}", note
        )
    return Padding(table, (0, 0, 0, 2))


def _memory(validation: Validation) -> list[RenderableType]:
    from simulator.validation.report import memory_errors  # noqa: PLC0415

    lines = list[RenderableType]()
    meanings = {
        "allocated": "allocated",
        "reserved": "reserved, which includes what the allocator keeps free",
    }
    for basis, meaning in meanings.items():
        errors = np.array(memory_errors(validation.counted, basis))
        if len(errors):
            middle, worst = np.median(np.abs(errors)), np.max(np.abs(errors))
            lines.append(
                f"Peak memory {meaning}: {len(errors)} rows, median {percent(middle)} %, "
                f"worst {percent(worst)} %, bias {100 * np.median(errors):+.1f} %"
            )
    return ["", *lines] if lines else []


def _choices(validation: Validation) -> list[RenderableType]:
    from simulator.validation.ranking import WITHIN, choices  # noqa: PLC0415

    found = choices(validation.predictions)
    if not found:
        return []
    good = sum(choice.good for choice in found)
    worst = max(choice.loss for choice in found)
    return [
        "",
        f"Choice of layout, all confidences: the predicted best of {len(found)} sets is the measured best or "
        f"within {100 * WITHIN:.0f} % in {good}; the worst choice loses {percent(worst)} %",
    ]


def _reasons(validation: Validation, plain: bool) -> RenderableType:
    reasons = validation.reasons()
    rows = sum(refused.row.identity.confidence == "high" for refused in validation.refused)
    heading = Text(f"Not predicted: {rows} rows of high confidence, for these reasons")
    table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    for reason, count in reasons.most_common():
        table.add_row(str(count), reason)
    return Group(heading, Padding(table, (0, 0, 0, 2)))
