"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Change one value of the file (repeatable); without a VALUE, leave the key out.",
    ),
]
JsonFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the result as JSON; '-' prints it instead of the tables."
    ),
]
Plots: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write every figure as PNG and SVG into this folder.")
]
ReportFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE.html", help="Write a report with pictures, in one file."),
]
