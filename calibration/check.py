"""How far a device's kernel model is from measurements: error figures per class of kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.fit.split import errors
from calibration.fit_network.check import check_collectives
from calibration.fit_network.rows import read_table as read_collectives
from calibration.predict import Unmapped, predict
from calibration.readers import Table, read_table
from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import load_kernel_profile
from simulator.spec.load import load_device

Array = npt.NDArray[np.float64]
_LINES_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Predictions beside measurements of one class and precision, in seconds."""

    kernel_class: str
    dtype: str
    predicted: Array
    measured: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Rows of a file that were not predicted; ``lines`` are the first few."""

    file: str
    reason: str
    n: int
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A kernel model against tables of measurements."""

    hardware: str
    profile: str
    points: tuple[Points, ...]
    skipped: tuple[Skipped, ...]

    def to_dict(self) -> dict[str, Any]:
        """``classes``, ``overall`` and ``unmapped``; errors are fractions, predicted / measured - 1."""
        every = Points(
            kernel_class="",
            dtype="",
            predicted=np.concatenate([p.predicted for p in self.points] or [np.zeros(0)]),
            measured=np.concatenate([p.measured for p in self.points] or [np.zeros(0)]),
        )
        return {
            "hardware": self.hardware,
            "profile": self.profile,
            "classes": [{"class": p.kernel_class, "dtype": p.dtype, **figures(p)} for p in self.points],
            "overall": figures(every),
            "unmapped": [asdict(s) for s in self.skipped],
        }


def figures(points: Points) -> dict[str, Any]:
    """Number of rows, median and 90 % quantile of the absolute error, median of the signed one."""
    if not len(points.measured):
        return {"n": 0, "median_abs_error": None, "p90_abs_error": None, "bias": None}
    found = errors(points.predicted, points.measured)
    return {
        "n": found.points,
        "median_abs_error": found.median,
        "p90_abs_error": found.p90,
        "bias": found.bias,
    }


def check(hardware: str, files: Iterable[str | Path], *, profile: str = "") -> Check:
    """Predict every row of the files on ``hardware`` (a device, a cluster or an alias).

    ``profile`` names another kernel profile, such as a site's. Raises SpecError for a file that is no table.
    """
    device = load_device(hardware)
    kernels = Kernels(device, load_kernel_profile(profile or device.kernels or device.name))
    gathered: dict[tuple[str, str], list[tuple[Array, Array]]] = {}
    skipped: list[Skipped] = []
    for file in files:
        table = read_table(file)
        if table.kind == "collective":
            _check_network(file, device.name, gathered, skipped)
            continue
        for found in predict(table, kernels):
            if isinstance(found, Unmapped):
                skipped.append(_skipped(file, found.rows, found.reason))
            elif len(found.rows):
                pair = (found.seconds, found.rows.seconds)
                gathered.setdefault((found.kernel_class, found.dtype), []).append(pair)
    points = tuple(
        Points(
            kernel_class=kernel_class,
            dtype=dtype,
            predicted=np.concatenate([p for p, _ in pairs]),
            measured=np.concatenate([m for _, m in pairs]),
        )
        for (kernel_class, dtype), pairs in gathered.items()
    )
    kept = tuple(s for s in skipped if s.n)
    return Check(hardware=device.name, profile=kernels.profile.name, points=points, skipped=kept)


def _check_network(
    file: str | Path,
    device: str,
    gathered: dict[tuple[str, str], list[tuple[Array, Array]]],
    skipped: list[Skipped],
) -> None:
    """Collectives: the fabric profiles of the machine that each row names."""
    tag = device.split("-", maxsplit=1)[0]
    result = check_collectives(read_collectives(file, device=tag))
    for c in result.checked:
        pair = (np.array([c.predicted_s]), np.array([c.row.seconds]))
        gathered.setdefault((c.row.collective, c.row.dtype), []).append(pair)
    for reason in result.reasons():
        lines = [s.row.line for s in result.skipped if s.reason == reason]
        skipped.append(
            Skipped(file=str(file), reason=reason, n=len(lines), lines=tuple(lines[:_LINES_SHOWN]))
        )


def _skipped(file: str | Path, rows: Table, reason: str) -> Skipped:
    lines = tuple(int(line) for line in rows.lines[:_LINES_SHOWN])
    return Skipped(file=str(file), reason=reason, n=len(rows), lines=lines)
