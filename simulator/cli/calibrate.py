"""``stepcast calibrate``: kernel coefficients from measurements, and how far they are from others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from calibration.check import Check

STDOUT = Path("-")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Fit kernel coefficients on measurements, and check them.",
)

Hardware = Annotated[
    str, typer.Option("--hardware", metavar="NAME", help="A device, a cluster, or a short alias.")
]
Profile = Annotated[
    str,
    typer.Option(metavar="NAME", help="A kernel profile (or its .yaml file) instead of the device's own."),
]


@app.command("fit")
def fit(
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="Measurement tables, or folders of them.")
    ],
    hardware: Hardware,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.yaml", help="The profile to write.")
    ],
    name: Annotated[str, typer.Option(help="The profile's name; by default the file's.")] = "",
    base: Profile = "",
    source: Annotated[str, typer.Option(help="Use only rows whose source column says this.")] = "",
) -> None:
    """Fit the classes of kernels that DATA covers, as an overlay over a shipped profile."""
    from calibration.fit.site_profile import fit_site_profile
    from calibration.fit.write import dump
    from calibration.predict import own_rows
    from calibration.readers import read_table
    from simulator.cost.kernels import Kernels
    from simulator.cost.profile_file import load_kernel_profile
    from simulator.spec.errors import Problem, SpecError
    from simulator.spec.load import load_device

    device = load_device(hardware)
    kernels = Kernels(device, load_kernel_profile(base or device.kernels or device.name))
    tables = [own_rows(read_table(path), device) for path in _files(data)]
    found = fit_site_profile(name or output.stem, kernels, tables, source=source)
    for reason in found.refused:
        typer.echo(f"not fitted: {reason}", err=True)
    if not any(
        section in found.document for section in ("gemm", "grouped_gemm", "attention", "memory_bound")
    ):
        raise SpecError(Problem(rule=f"the data fits no class of kernels of {device.name}"))
    output.write_text(dump(found.document), encoding="utf-8")
    _print_fits(found.document)


@app.command("check")
def check(
    data: Annotated[
        list[Path], typer.Option("--data", metavar="FILE.csv", help="A measurement table; repeatable.")
    ],
    hardware: Hardware,
    profile: Profile = "",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the figures as JSON; '-' prints them instead of a table."
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write predicted against measured, a plot per class.")
    ] = None,
) -> None:
    """Predicted against measured, by class of kernels."""
    from calibration.check import check as checked

    result = checked(hardware, _files(data), profile=profile)
    if json_file is not None:
        text = json.dumps(result.to_dict(), indent=2)
        if json_file == STDOUT:
            typer.echo(text)
        else:
            json_file.write_text(text + "\n", encoding="utf-8")
    if plots is not None:
        from calibration.plots import plot_check

        plot_check(result, plots)
    if json_file != STDOUT:
        _print_check(result)


def _files(paths: list[Path]) -> list[Path]:
    """Files as they are; of a folder, its tables."""
    found: list[Path] = []
    for path in paths:
        found += sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")]) if path.is_dir() else [path]
    return found


def _print_check(result: Check) -> None:
    from rich.table import Table

    from reports.screen import make_console

    outcome = result.to_dict()
    table = Table(title=f"{result.hardware}: predicted / measured - 1 with profile {result.profile}")
    for column in ("class", "precision"):
        table.add_column(column)
    for column in ("rows", "median |error|", "90 % |error|", "bias"):
        table.add_column(column, justify="right")
    overall = {"class": "all", "dtype": "", **outcome["overall"]}
    for row in [*outcome["classes"], overall]:
        table.add_row(row["class"], row["dtype"], *_cells(row))
    console = make_console()
    console.print(table)
    for skipped in result.skipped:
        lines = ", ".join(map(str, skipped.lines))
        console.print(
            f"{skipped.n} rows of {skipped.file} not predicted (lines {lines} ...): {skipped.reason}"
        )


def _cells(row: dict[str, Any]) -> list[str]:
    if not row["n"]:
        return ["0", "", "", ""]
    errors = (row["median_abs_error"], row["p90_abs_error"], row["bias"])
    return [
        f"{row['n']:,}",
        *(f"{100 * error:+.1f} %" if i == 2 else f"{100 * error:.1f} %" for i, error in enumerate(errors)),
    ]


def _print_fits(document: dict[str, Any]) -> None:
    for section in ("gemm", "grouped_gemm", "attention", "memory_bound"):
        for key, fitted in document.get(section, {}).items():
            for direction, fit in fitted.items() if section == "attention" else [("", fitted)]:
                errors = fit.get("held_out")
                if errors:
                    typer.echo(
                        f"{section} {key} {direction}".rstrip()
                        + f": {fit['points']} rows, held-out error {100 * errors['median']:.1f} % median, "
                        f"{100 * errors['p90']:.1f} % at 90 %"
                    )
