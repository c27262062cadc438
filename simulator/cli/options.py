"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from simulator.spec.errors import SpecError

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


def _web_page(path: Path | None) -> Path | None:
    """Raises BadParameter for the name of a file of another kind."""
    if path is not None and path.suffix.lower() not in ("", ".html", ".htm"):
        raise typer.BadParameter(
            f"reports are web pages, as in {path.with_suffix('.html')}, not {path.suffix} files"
        )
    return path


ReportFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write a report with pictures, in one file.",
        callback=_web_page,
    ),
]


@contextmanager
def asked_by(option: str) -> Iterator[None]:
    """What is wrong with a name is told with the option that it was given to."""
    try:
        yield
    except SpecError as error:
        raise SpecError(
            *(
                replace(problem, key_path=option) if not problem.file and not problem.key_path else problem
                for problem in error.problems
            )
        ) from None
