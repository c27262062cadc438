"""``stepcast sweep``: many layouts from one file, ranked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def sweep(
    sweep_file: Annotated[
        str, typer.Argument(metavar="SWEEP.yaml", help="A sweep file, or a sweep that ships by name.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY.PATH=VALUE", help="Change one value, as in search=best (repeatable)."
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Keep every result in this directory."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes to simulate in; 0: one per core.")] = 0,
    resume: Annotated[bool, typer.Option(help="Continue the sweep that -o holds.")] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the outcome as JSON; '-' prints it instead of the tables."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Layouts to print.")] = 10,
) -> None:
    """Simulate many layouts and rank them."""
    from reports.files import STDOUT, write_json
    from reports.sweep_progress import shown_progress
    from reports.sweep_table import print_outcome
    from simulator.sweep.execute import executor_for
    from simulator.sweep.outcome_json import outcome_json
    from simulator.sweep.read import read_sweep
    from simulator.sweep.search import Progress, search
    from simulator.sweep.store import Store

    asked = read_sweep(sweep_file, overrides or [])
    with Store(directory, asked.fingerprint, resume=resume) as store, shown_progress(Progress()) as progress:
        outcome = search(asked, store, executor_for(workers), progress)
    if json_file is not None:
        write_json(outcome_json(outcome), json_file)
    if json_file != STDOUT:
        print_outcome(outcome, top)
    if not outcome.complete:
        from simulator.cli.lazy import INTERRUPTED

        raise typer.Exit(INTERRUPTED)
