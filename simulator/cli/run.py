"""``stepcast run``: predict one training run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import JsonFile, Overrides, Plots, ReportFile

if TYPE_CHECKING:
    from simulator.result import Result
    from simulator.spec.run import RunSpec

app = typer.Typer(add_completion=False)


class Detail(StrEnum):
    """How much of the step a trace shows."""

    block = "block"
    operator = "operator"


@app.command()
def run(
    run_file: Annotated[
        str, typer.Argument(metavar="RUN.yaml", help="A run file, or a run that ships by name.")
    ],
    overrides: Overrides = None,
    json_file: JsonFile = None,
    trace_file: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="FILE.json[.gz]", help="Write a timeline for Perfetto (ui.perfetto.dev)."
        ),
    ] = None,
    report_file: ReportFile = None,
    plots: Plots = None,
    trace_detail: Annotated[
        Detail | None,
        typer.Option(help="What a slice of the timeline is; the run file's simulation.detail if left out."),
    ] = None,
    other_hardware: Annotated[
        bool,
        typer.Option("--what-if", help="Also simulate hardware that is 10 % better in one figure at a time."),
    ] = False,
) -> None:
    """Predict step time, MFU and memory of one training run."""
    from reports.files import STDOUT, refuse_unusable, write_json
    from simulator.engine.replay import paused_collector
    from simulator.simulate import simulate
    from simulator.spec.load import load_run

    detail = [f"simulation.detail={trace_detail}"] if trace_detail else []
    spec = load_run(run_file, [*(overrides or []), *detail])
    refuse_unusable((json_file, trace_file, report_file), (plots,))
    pictured = [trace_file, report_file, plots]
    result = simulate(spec, timeline=any(place is not None for place in pictured))
    if result.memory["verdict"] != "fits":
        from simulator.sweep.remedies import with_remedies

        result = with_remedies(result, spec)
    if other_hardware:
        from simulator.what_if import with_what_if

        result = with_what_if(result, spec)
    if trace_file is not None:
        from reports.trace import write_trace

        about = {"run": spec.name, **result.provenance}
        write_trace(trace_file, result.timeline, about, result.details)
    with paused_collector():  # nothing is given back before the end
        _draw(result, spec, report_file, plots)
        if json_file is not None:
            write_json(result.to_dict(), json_file)
        if json_file != STDOUT:
            from reports.terminal import print_result

            print_result(result, spec)


def _draw(result: Result, spec: RunSpec, report_file: Path | None, plots: Path | None) -> None:
    """Writes the report and the figures that were asked for."""
    if report_file is not None:
        from reports.html import write_report

        write_report(report_file, result, spec)
    if plots is not None:
        from reports.plots import write_plots

        write_plots(plots, result, spec)
