"""The screen of ``stepcast validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.columns import table
from reports.screen import make_console, show
from reports.validation_scores import FIGURES, NAMES, TITLES, percent, score_lines, worst

if TYPE_CHECKING:
    from simulator.validation.report import CrossValidation, Validation

WIDTH = 130
WORST = 10
NARROW = 100  # columns; below, LEAST is left out
LEAST = ("groups", "mean", "worst", "constant HFU")


def print_validation(validation: Validation, console: Console | None = None) -> None:
    """Print the table by source, device and kind of model, the worst rows, and what is not predicted."""
    console = console or make_console(WIDTH)
    room = console.width - 2
    sections: list[RenderableType] = [Text(TITLES[validation.protocol], style="bold")]
    if validation.counted:
        sections += [Padding(_table(validation, room), (0, 0, 0, 2)), "", _worst(validation, room)]
    else:
        sections.append("  no row of high confidence is predicted")
    sections += [*_memory(validation), *_choices(validation), "", _reasons(validation), ""]
    show(console, *sections)


def print_cross_validation(crossed: CrossValidation, console: Console | None = None) -> None:
    """Print the tables of every protocol, and the factors of all rows together."""
    console = console or make_console(WIDTH)
    room = console.width - 2
    for validation in crossed.protocols.values():
        sections: list[RenderableType] = [Text(TITLES[validation.protocol], style="bold")]
        if validation.counted:
            sections += [Padding(_table(validation, room), (0, 0, 0, 2)), "", _worst(validation, room), ""]
        show(console, *sections)
    heading = Text(
        "Sustained factors fitted on all rows: to ship in a kernel profile, not a score", style="bold"
    )
    show(console, heading, Padding(_factors(crossed, room), (0, 0, 0, 2)), "")


def _factors(crossed: CrossValidation, room: int) -> Table:
    rows = []
    for f in crossed.class_factors:
        low, high = f.spread
        numbers = (f"{f.factor:.3f}", str(f.rows), str(f.groups), f"{low:.2f} – {high:.2f}")
        rows.append((f.device, f.precision, *numbers))
    return table(("device", "precision", "factor", "rows", "groups", "of single groups"), rows, room)


def _table(validation: Validation, room: int) -> Table:
    """A line per group and blank lines between blocks; on a narrow screen the figures that matter most."""
    names = [*NAMES, *FIGURES]
    shown = [index for index, name in enumerate(names) if room >= NARROW or name not in LEAST]
    rows = list[tuple[str, ...]]()
    for block in score_lines(validation):
        rows += [("",) * len(names)] if rows else []
        rows += [(*line.names, *line.figures) for line in block]
    cut = [[row[index] for index in shown] for row in rows]
    return table([names[index] for index in shown], cut, room, text=range(len(NAMES)))


def _worst(validation: Validation, room: int) -> RenderableType:
    rows = [
        (
            p.row.run_id,
            f"{p.measured_s:.4g}",
            f"{p.predicted_s:.4g}",
            f"{100 * p.error:+.1f}",
            "factor of other devices" if p.row.run_id in validation.transferred else "",
        )
        for p in worst(validation, WORST)
    ]
    heads = ["worst rows", "measured, s", "predicted, s", "error, %", "note"]
    if not any(row[-1] for row in rows):
        heads, rows = heads[:-1], [row[:-1] for row in rows]  # type: ignore[misc]
    return Padding(table(heads, rows, room, text=(0, 4)), (0, 0, 0, 2))


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


def _reasons(validation: Validation) -> RenderableType:
    reasons = validation.reasons()
    rows = sum(refused.row.identity.confidence == "high" for refused in validation.refused)
    heading = Text(
        f"Not predicted: {rows} rows of high confidence" + (", for these reasons" if reasons else "")
    )
    found = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    found.add_column(justify="right")
    found.add_column()
    for reason, count in reasons.most_common():
        found.add_row(str(count), reason)
    return Group(heading, Padding(found, (0, 0, 0, 2)))
