"""Every figure of a run as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reports.figures.canvas import save_all
from reports.figures.run import figures
from simulator.result import Result

if TYPE_CHECKING:
    from simulator.spec.run import RunSpec


def write_plots(folder: Path, result: Result, run: RunSpec) -> None:
    """Write NAME.png and NAME.svg for each figure into a folder, which is made if it is not there.

    Raises:
        OSError: the folder or a file cannot be written.
        ValueError: the result has no details; ``simulate(run, timeline=True)`` keeps them.
    """
    save_all(folder, figures(result, run))
