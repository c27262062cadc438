"""``stepcast show keys``: every key that a run file may have, with what it accepts and means."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.screen import make_console, show
from simulator.spec.errors import Problem, SpecError, listed, nearest
from simulator.spec.keys import Key, keys_of
from simulator.spec.run import RunSpec

WIDTH = 160  # of a pipe
APART = ("model", "cluster")  # sections with files of their own: their keys are listed when asked for


def keys(
    section: Annotated[
        str, typer.Argument(help="A key or section, such as parallelism, training.documents or model.")
    ] = "",
) -> None:
    """List the keys of a run file: every split, precision, recompute and switch that is modelled."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("key", no_wrap=True)
    for head in ("default", "accepts", "meaning"):
        table.add_column(head, overflow="fold")
    for key in _chosen(section):
        accepts = f"{key.accepts} ({key.unit})" if key.unit else key.accepts
        table.add_row(*map(Text, (key.path, key.default, accepts, key.meaning)))
    title = f"Keys of a run file below {section}" if section else "Keys of a run file"
    show(make_console(WIDTH), Text(title, style="bold"), Padding(table, (0, 0, 0, 2)), "")


def _chosen(section: str) -> list[Key]:
    """The keys of a section; of all of them, those of models and clusters are left out."""
    known = list(keys_of(RunSpec))
    if not section:
        return [key for key in known if key.path.partition(".")[0] not in APART or "." not in key.path]
    found = [
        key for key in known if key.path.removesuffix("[]") == section or key.path.startswith(f"{section}.")
    ]
    if not found:
        names = [key.path for key in known]
        problem = Problem(
            key_path="show keys",
            value=section,
            rule="must be a key or a section of a run file",
            suggestion=nearest(section, names) or listed(key.path for key in known if "." not in key.path),
        )
        raise SpecError(problem)
    return found
