"""Tables of measured collectives.

Columns: ``collective, size_bytes, nranks, time_us`` and optionally ``dtype, nodes, fabric, nccl, algo,
source``; other columns are ignored. Sizes and bandwidths follow nccl-tests: the size is the column that
program prints (all_reduce the buffer, all_gather the gathered output, reduce_scatter the whole input,
alltoall what one rank sends, sendrecv the message); bus bandwidth is size·factor/time.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

NAMES = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
    "sendrecv": "send_recv",
    "send_recv": "send_recv",
    "broadcast": "broadcast",
    "reduce": "reduce",
}
REQUIRED = ("collective", "size_bytes", "nranks", "time_us")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveRow:
    """One measurement. ``nodes`` counts hosts, not scale-up domains; ``line`` is its place in ``file``."""

    collective: str
    size_bytes: float
    ranks: int
    nodes: int
    seconds: float
    dtype: str = ""
    device: str = ""
    fabric: str = ""
    library: str = ""
    algorithm: str = ""
    source: str = ""
    file: str = ""
    line: int = 0


def bus_factor(collective: str, ranks: int) -> float:
    """Bytes each rank must send over the size, as nccl-tests counts bus bandwidth."""
    if collective == "all_reduce":
        return 2.0 * (ranks - 1) / ranks
    if collective in ("all_gather", "reduce_scatter", "all_to_all"):
        return (ranks - 1) / ranks
    return 1.0


def read_table(path: str | Path, device: str = "") -> list[CollectiveRow]:
    """The rows of a CSV file (gzipped if it ends in .gz).

    ``device`` names the accelerator when the file has no ``device`` column; by default the part of the file
    name after ``collectives_``. Raises ValueError with the line number of the first row that is not a
    measurement.
    """
    path = Path(path)
    device = device or _device_in_name(path)
    with _opened(path) as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(missing)}; a collective table has {', '.join(REQUIRED)}"
            )
        return [_row(path, reader.line_num, record, device) for record in reader]


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _device_in_name(path: Path) -> str:
    stem = path.name.split(".")[0]
    return stem.removeprefix("collectives_") if stem.startswith("collectives_") else ""


def _row(path: Path, line: int, record: dict[str, str | None], device: str) -> CollectiveRow:
    def text(key: str) -> str:
        return (record.get(key) or "").strip()

    name = text("collective")
    if name not in NAMES:
        raise ValueError(f"{path}:{line}: collective {name!r} is not one of {', '.join(sorted(NAMES))}")
    try:
        size, ranks = float(text("size_bytes")), int(text("nranks"))
        nodes, microseconds = int(text("nodes") or 1), float(text("time_us"))
    except ValueError as error:
        raise ValueError(f"{path}:{line}: {error}") from None
    if ranks < 1 or nodes < 1 or size < 0 or not microseconds > 0:
        raise ValueError(
            f"{path}:{line}: size {size:g} B over {ranks} ranks on {nodes} nodes in {microseconds:g} us "
            "is not a measurement"
        )
    return CollectiveRow(
        collective=NAMES[name],
        size_bytes=size,
        ranks=ranks,
        nodes=nodes,
        seconds=microseconds * 1e-6,
        dtype=text("dtype"),
        device=text("device") or text("gpu") or device,
        fabric=text("fabric"),
        library=text("nccl"),
        algorithm=text("algo"),
        source=text("source"),
        file=str(path),
        line=line,
    )


def by_curve(rows: list[CollectiveRow]) -> Iterator[tuple[tuple[str, int], list[CollectiveRow]]]:
    """Rows grouped by (collective, ranks)."""
    keys = sorted({(r.collective, r.ranks) for r in rows})
    for key in keys:
        yield key, [r for r in rows if (r.collective, r.ranks) == key]
