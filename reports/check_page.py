"""The report of ``stepcast calibrate check``: a kernel model beside measurements, class by class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reports.check_scores import FIGURES, NAMES, error_cells
from reports.figures.canvas import inline_svg, save_all
from reports.figures.check import check
from reports.files import replacing
from reports.page import Section, figure, page, paragraph, table, tiles

if TYPE_CHECKING:
    from calibration.check import Check, Points


def write_check_report(path: Path, result: Check) -> None:
    """Write the page. Raises OSError naming the file."""
    facts = [f"Kernel profile {result.profile} beside measurements", "Errors are predicted / measured − 1."]
    text = page(result.hardware, facts, list(_sections(result)), f"kernel profile {result.profile}")
    with replacing(path) as stream:
        stream.write(text)


def write_check_plots(folder: Path, result: Check) -> None:
    """Write a PNG and an SVG per class and precision into a folder, which is made if it is not there."""
    save_all(folder, {_key(points): check(points) for points in _drawn(result)})


def _drawn(result: Check) -> Iterator[Points]:
    return (points for points in result.points if len(points.measured))


def _key(points: Points) -> str:
    return "-".join(f"{points.kernel_class} {points.dtype}".split())


def _sections(result: Check) -> Iterator[Section]:
    outcome = result.to_dict()
    rows, middle, tail, bias = error_cells(outcome["overall"])
    left = sum(skipped.n for skipped in result.skipped)
    numbers = [("Rows", rows, f"{left:,} more are not predicted")]
    if outcome["overall"]["n"]:
        numbers += [
            ("Median error", f"{middle} %", f"90th percentile {tail} %"),
            ("Bias", f"{bias} %", "median of the signed errors"),
        ]
    yield Section("headline", "Headline", tiles(numbers))
    lines = [(row["class"], row["dtype"], *error_cells(row)) for row in outcome["classes"]]
    yield Section("classes", "By class", table((*NAMES, *FIGURES), lines, text_columns=len(NAMES)))
    for points in _drawn(result):
        name = f"{points.kernel_class} {points.dtype}".strip()
        drawn = inline_svg(check(points), _key(points), f"Predicted and measured times of {name}")
        yield Section(f"class-{_key(points)}", name, figure(drawn, ""))
    yield Section("not-predicted", "Not predicted", _skipped(result))


def _skipped(result: Check) -> str:
    if not result.skipped:
        return paragraph("Every row is predicted.")
    rows = [
        (skipped.file, skipped.reason, f"{skipped.n:,}", ", ".join(map(str, skipped.lines)))
        for skipped in result.skipped
    ]
    return table(("file", "reason", "rows", "first lines"), rows, text_columns=2)
