"""The ``stepcast`` command: finds the subcommand asked for, turns failures into messages and exit codes.

Exit codes: 0 done; 2 the input is wrong; 1 a fault of ours; 130 interrupted; 141 the reader of a pipe left.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from importlib import metadata
from typing import Annotated, ClassVar

import typer

from simulator.cli.lazy import LazyGroup
from simulator.spec.errors import SpecError

DEBUG_VARIABLE = "STEPCAST_DEBUG"
OUR_PACKAGES = ("simulator", "calibration", "reports")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
OUR_FAULT = """stepcast failed: {}: {}
This is a fault of stepcast, not of your input. Please report it with the run file and what
"stepcast --debug ..." prints for the same command."""


class Commands(LazyGroup):
    """The subcommands of ``stepcast``: name → module."""

    table: ClassVar[dict[str, str]] = {
        "calibrate": "simulator.cli.calibrate",
        "import": "simulator.cli.import_",
        "run": "simulator.cli.run",
        "show": "simulator.cli.show",
        "sweep": "simulator.cli.sweep",
        "validate": "simulator.cli.validate",
    }


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
)


def _print_version(asked: bool) -> None:
    if asked:
        try:
            version = metadata.version("stepcast")
        except metadata.PackageNotFoundError:
            version = "(not installed: run from its source)"
        typer.echo(f"stepcast {version}")
        raise typer.Exit


@app.callback()
def stepcast(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Predict step time, MFU and memory of large-model training on GPU clusters."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"  # worker processes see it too


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit. ``arguments`` defaults to those of the process."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without "×" gets "?"
    try:
        typer.main.get_command(app).main(args=arguments, prog_name="stepcast")
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exception(error)
        label = typer.style("error:", fg=typer.colors.RED, bold=True) if sys.stderr.isatty() else "error:"
        users = is_users_mistake(error)
        typer.echo(
            f"{label} {_message(error) if users else OUR_FAULT.format(type(error).__name__, error)}", err=True
        )
        sys.exit(2 if users else 1)


def _message(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)


def is_users_mistake(error: Exception) -> bool:
    """Whether the message speaks to the user: wrong input, an unusable file, a full disk, a ValueError of
    our own.

    A ValueError out of a library (a shape that does not broadcast, say) is a fault of ours and looks alike.
    """
    if isinstance(error, SpecError):
        return True
    if isinstance(error, OSError):
        return error.filename is not None or error.errno in NO_SPACE
    trace = error.__traceback__
    if not isinstance(error, ValueError) or trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] in OUR_PACKAGES
