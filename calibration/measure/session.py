"""Running a plan: skip what is on file, time the rest, write every row as it comes, stop in time."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from calibration.measure.plan import Case, Plan

MACHINE_FILE = "machine.json"
_MEASURED = ("time_us", "spread", "repeats", "gpu", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """``seconds``: median of the repeats; ``spread``: half the range of their middle 68 %, relative."""

    seconds: float
    spread: float
    repeats: int


class Backend(Protocol):
    """Something that runs kernels."""

    gpu: str  # name as the tables' ``gpu`` column has it

    def describe(self) -> dict[str, str]:
        """Versions, clocks, power limit: what the times depend on."""
        ...

    def refuses(self, case: Case) -> str:
        """Why a case cannot be run here; empty if it can."""
        ...

    def time(self, case: Case) -> Timing:
        """Time a case."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a plan."""

    measured: int
    resumed: int  # on file before
    left: int  # the budget ended first
    refused: dict[str, int]  # reason -> cases


def measure(
    cases: Plan,
    backend: Backend,
    folder: Path,
    *,
    source: str,
    budget_s: float = float("inf"),
    progress: Callable[[int, int], None] = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Time the cases of a plan that ``folder`` does not hold yet, one table per kind.

    Rows are written as they come, so a run that is cut off resumes where it stopped. ``clock`` counts
    seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MACHINE_FILE).write_text(json.dumps(backend.describe(), indent=2) + "\n", encoding="utf-8")
    known = _on_file(folder, {case.kind for case in cases})
    start = clock()
    measured = resumed = left = 0
    refused: dict[str, int] = {}
    for index, case in enumerate(cases):
        progress(index, len(cases))
        if _key(case, source) in known:
            resumed += 1
        elif reason := backend.refuses(case):
            refused[reason] = refused.get(reason, 0) + 1
        elif clock() - start >= budget_s:
            left += 1
        else:
            _append(folder, case, backend.time(case), backend.gpu, source)
            measured += 1
    progress(len(cases), len(cases))
    return Outcome(measured=measured, resumed=resumed, left=left, refused=refused)


def _source(case: Case, source: str) -> str:
    return f"{source}-sustained" if case.sustained_s else source


def _key(case: Case, source: str) -> tuple[str, ...]:
    return (case.kind, *(f"{name}={value}" for name, value in sorted(case.columns)), _source(case, source))


def _on_file(folder: Path, kinds: Iterable[str]) -> set[tuple[str, ...]]:
    """The cases measured before. A last line that was cut off is dropped from the file."""
    known = set()
    for kind in kinds:
        path = folder / f"{kind}.csv"
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                cells = sorted((name, value) for name, value in row.items() if name not in _MEASURED)
                known.add((kind, *(f"{name}={value}" for name, value in cells), row["source"]))
    return known


def _append(folder: Path, case: Case, timing: Timing, gpu: str, source: str) -> None:
    path = folder / f"{case.kind}.csv"
    new = not path.exists() or not path.stat().st_size
    cells = {
        **dict(case.columns),
        "time_us": f"{timing.seconds * 1e6:.4f}",
        "spread": f"{timing.spread:.4f}",
        "repeats": timing.repeats,
        "gpu": gpu,
        "source": _source(case, source),
    }
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(cells), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(cells)
