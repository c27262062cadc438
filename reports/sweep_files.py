"""What a sweep leaves in its directory beside the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reports.files import replacing
from simulator.interop.launch_settings import launch_settings
from simulator.sweep.export import csv_text, run_file, write_parquet

if TYPE_CHECKING:
    from simulator.sweep.search import Outcome


def write_results(outcome: Outcome, directory: Path) -> list[Path]:
    """Write ``results.csv`` (and ``.parquet`` where pyarrow is installed), the winner's run file and launch
    settings. Gives the files; raises OSError naming the one that cannot be written.
    """
    written = [_text(directory / "results.csv", csv_text(outcome))]
    if write_parquet(outcome, directory / "results.parquet"):
        written.append(directory / "results.parquet")
    if outcome.best is None:
        return written
    written.append(_text(directory / "best.yaml", run_file(outcome, outcome.best)))
    for settings in launch_settings(outcome.layouts[outcome.best.number].run):
        written.append(_text(directory / settings.file_name, settings.text))
    return written


def _text(path: Path, text: str) -> Path:
    with replacing(path) as stream:
        stream.write(text)
    return path
