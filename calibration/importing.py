"""Others' measurements as tables: nccl-tests logs, PyTorch profiler traces, tables as they are."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

from calibration.fit_network.nccl_tests import read_log, table_lines
from calibration.kineto import COLUMNS, read_trace
from calibration.readers import read_table
from simulator.spec.errors import Problem, SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A table that was written."""

    path: Path
    kind: str
    rows: int


def import_file(path: Path, output: Path, *, gpu: str = "", source: str = "", fabric: str = "") -> Imported:
    """Write the measurements of ``path`` as a table at ``output``.

    ``gpu`` names the device where the file does not, ``source`` who measured (the file's name by
    default), ``fabric`` the machine of a collective. Raises SpecError with the line that is wrong.
    """
    if path.name.endswith((".csv", ".csv.gz")):
        table = read_table(path)
        shutil.copyfile(path, output)
        return Imported(path=output, kind=table.kind, rows=len(table))
    if _is_trace(path):
        rows: list[list[object]] = [list(COLUMNS)]
        rows += [found.row(gpu, source or path.name) for found in read_trace(path)]
        kind = "gemm_training"
    else:
        try:
            rows = [list(line) for line in table_lines(read_log(path, device=gpu, fabric=fabric))]
        except ValueError as error:
            raise SpecError(Problem(rule=str(error))) from error
        kind = "collective"
    with output.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return Imported(path=output, kind=kind, rows=len(rows) - 1)


def _is_trace(path: Path) -> bool:
    """Traces and nccl-tests' JSON share their suffix; only a trace lists its events."""
    if path.name.endswith(".json.gz"):
        return True
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"traceEvents" in file.read() if path.stat().st_size < 1 << 24 else True
