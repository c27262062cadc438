"""``stepcast show keys``: every key that a run file may have, with what it accepts and means."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reports.screen import make_console, show
from simulator.spec.errors import Problem, SpecError, listed, nearest
from simulator.spec.keys import Key, keys_of
from simulator.spec.run import RunSpec

WIDTH = 160  # of a pipe
ROOM = 120  # columns from which on a key fits on a line
APART = ("model", "cluster")  # sections with files of their own: their keys are listed when asked for


def keys(
    section: Annotated[
        str, typer.Argument(help="A key or section, such as parallelism, training.documents or model.")
    ] = "",
) -> None:
    """List the keys of a run file: every split, precision, recompute and switch that is modelled."""
    console = make_console(WIDTH)
    shown = _side_by_side if console.width >= ROOM else _one_below_the_other
    title = f"Keys of a run file below {section}" if section else "Keys of a run file"
    show(console, Text(title, style="bold"), Padding(shown(_chosen(section)), (0, 0, 0, 2)), "")


def _side_by_side(keys: list[Key]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("key", no_wrap=True)
    for head in ("default", "accepts", "meaning"):
        table.add_column(head, overflow="fold")
    for key in keys:
        table.add_row(*map(Text, (key.path, key.default, _accepts(key), key.meaning)))
    return table


def _one_below_the_other(keys: list[Key]) -> Group:
    """For narrow terminals: the key and its default, and what it means and accepts below."""
    blocks: list[Text | Padding] = []
    for key in keys:
        blocks.append(Text(key.path, style="bold").append(f"  {key.default}", style="not bold"))
        blocks += [Padding(Text(line), (0, 0, 0, 4)) for line in (key.meaning, _accepts(key)) if line]
    return Group(*blocks)


def _accepts(key: Key) -> str:
    return f"{key.accepts} ({key.unit})" if key.unit else key.accepts


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
