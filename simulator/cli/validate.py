"""``stepcast validate``: compare predictions with published measurements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import JsonFile, Plots, ReportFile

if TYPE_CHECKING:
    from simulator.validation.predict import Progress
    from simulator.validation.report import CrossValidation, Validation

app = typer.Typer(add_completion=False)


@app.command()
def validate(
    runs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Published runs to compare with, instead of those that ship."),
    ] = None,
    cross: Annotated[
        bool,
        typer.Option(
            "--cross-validate",
            help="Fit one sustained factor per device and precision class, and score every row with a factor "
            "that has not seen its group, its source or its device.",
        ),
    ] = False,
    json_file: JsonFile = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="With --cross-validate: the accuracy table of the README."),
    ] = None,
    report_file: ReportFile = None,
    plots: Plots = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes to simulate in.")] = 2,
) -> None:
    """Compare predictions with published measurements of training runs."""
    if markdown is not None and not cross:
        raise typer.BadParameter("needs --cross-validate", param_hint="--markdown")
    from reports.files import STDOUT, refuse_unusable, write_json
    from reports.validation_table import print_cross_validation, print_validation
    from simulator.validation import validate as protocols
    from simulator.validation.predict import Simulations
    from simulator.validation.rows import read_rows, shipped_rows

    refuse_unusable((json_file, markdown, report_file), (plots,))
    rows = read_rows(runs) if runs else shipped_rows()
    with _progress() as progress:
        simulations = Simulations(workers, progress)
        shipped = protocols.validate(rows, simulations)
        crossed = protocols.cross_validate(rows, simulations) if cross else None
    outcome = shipped.to_dict()
    if crossed is not None:
        outcome["cross_validation"] = crossed.to_dict()
    if json_file is not None:
        write_json(outcome, json_file)
    if markdown is not None and crossed is not None:
        from reports.files import replacing
        from reports.validation_markdown import accuracy_table

        with replacing(markdown) as stream:
            stream.write(accuracy_table(outcome))
    _draw(shipped, crossed, report_file, plots)
    if json_file != STDOUT:
        print_validation(shipped)
        if crossed is not None:
            print_cross_validation(crossed)


def _draw(
    shipped: Validation, crossed: CrossValidation | None, report_file: Path | None, plots: Path | None
) -> None:
    """Writes the report and the figures that were asked for."""
    if report_file is not None:
        from reports.validation_page import write_validation_report

        write_validation_report(report_file, shipped, crossed)
    if plots is not None:
        from reports.validation_page import write_validation_plots

        write_validation_plots(plots, shipped, crossed)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from simulator.validation.predict import Progress

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("reading", total=None)
        yield Progress(
            total=lambda what, rows: bars.reset(task, description=what, total=rows),
            done=lambda rows: bars.advance(task, rows),
        )
