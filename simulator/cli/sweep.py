"""``stepcast sweep``: many layouts from one file, ranked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import JsonFile, Overrides, Plots, ReportFile

if TYPE_CHECKING:
    from simulator.sweep.execute import Executor
    from simulator.sweep.read import Sweep
    from simulator.sweep.search import Outcome
    from simulator.sweep.store import Store

app = typer.Typer(add_completion=False)


@app.command()
def sweep(
    sweep_file: Annotated[
        str, typer.Argument(metavar="SWEEP.yaml", help="A sweep file, or a sweep that ships by name.")
    ],
    overrides: Overrides = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Keep every result in this directory, with CSV and the winner's settings.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes to simulate in; 0: one per core.")] = 0,
    dask: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Simulate on the workers of this Dask scheduler instead.")
    ] = "",
    resume: Annotated[bool, typer.Option(help="Continue the sweep that -o holds.")] = False,
    explain: Annotated[
        int, typer.Option(min=0, metavar="ID", help="Compare one layout with the best one.")
    ] = 0,
    json_file: JsonFile = None,
    report_file: ReportFile = None,
    plots: Plots = None,
    top: Annotated[int, typer.Option(min=1, help="Layouts to print.")] = 10,
) -> None:
    """Simulate many layouts and rank them."""
    if resume and directory is None:
        raise typer.BadParameter("needs -o DIR, the sweep to continue", param_hint="--resume")
    from reports.files import refuse_unusable
    from simulator.sweep.read import read_sweep
    from simulator.sweep.store import Store

    asked = read_sweep(sweep_file, overrides or [])
    refuse_unusable((json_file, report_file), (plots, directory))
    with Store(directory, asked.fingerprint, resume=resume or bool(explain)) as store:
        if explain:
            from simulator.sweep.search import look_up

            outcome = look_up(asked, store, explain)
        else:
            with _executor(asked, workers, dask) as executor:
                outcome = _searched(asked, store, executor)
            if directory is not None:
                from reports.sweep_files import write_results

                write_results(outcome, directory)
    _draw(outcome, report_file, plots)
    _show(outcome, json_file, top)
    if not outcome.complete:
        from simulator.cli.lazy import INTERRUPTED

        raise typer.Exit(INTERRUPTED)


def _searched(asked: Sweep, store: Store, executor: Executor) -> Outcome:
    """What the sweep finds, its progress shown."""
    from reports.sweep_progress import shown_progress
    from simulator.sweep.search import Progress, search  # 0.5 s, while workers start

    with shown_progress(Progress()) as progress:
        return search(asked, store, executor, progress)


def _executor(asked: Sweep, workers: int, dask: str) -> AbstractContextManager[Executor]:
    """Where the simulations run."""
    if dask:
        from simulator.sweep.dask import DaskCluster

        return DaskCluster(dask)
    from simulator.sweep.execute import local_executor

    return local_executor(workers, prepared=asked.is_large)


def _draw(outcome: Outcome, report: Path | None, plots: Path | None) -> None:
    """Writes the report and the figures that were asked for."""
    if report is not None:
        from reports.sweep_page import write_sweep_report

        write_sweep_report(report, outcome)
    if plots is not None:
        from reports.figures.canvas import save_all
        from reports.sweep_figures import sweep_figures

        save_all(plots, sweep_figures(outcome))


def _show(outcome: Outcome, json_file: Path | None, top: int) -> None:
    """Everything that was asked for in words and numbers."""
    from reports.files import STDOUT, write_json
    from reports.sweep_table import print_explanation, print_outcome
    from simulator.sweep.outcome_json import outcome_json

    if json_file is not None:
        write_json(outcome_json(outcome), json_file)
    if json_file == STDOUT:
        return
    if outcome.explained is not None:
        print_explanation(outcome)
    else:
        print_outcome(outcome, top)
