"""Logs of nccl-tests: the text it prints, and the JSON file its ``-J`` option writes.

The text carries the rank list (host and device of each rank), one header whose columns depend on the release,
and one line per size with an out-of-place and an in-place part; the out-of-place time is read. Lines may
carry the prefix of an MPI launcher.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from calibration.fit_network.rows import NAMES, CollectiveRow

_PREFIX = re.compile(r"^(?:\[[\d,]+\]<std(?:out|err)>:\s?|\d+:\s+(?=#|\d))")
_RANK = re.compile(r"^#\s+Rank\s+(\d+)\b.*?\bon\s+(\S+)\s+device\s+\S+\s+\[\S+\]\s*(.*)$")
_TEST = re.compile(r"\b([a-z_]+)_perf\b")
_VERSION = re.compile(r"NCCL version\s+(\S+)")
_DEVICES = (
    ("GB300", "gb300"), ("GB200", "gb200"), ("B300", "b300"), ("B200", "b200"), ("H200", "h200"), ("H800",
    "h800"), ("H100", "h100"), ("A100", "a100"),
)  # fmt: skip
_MEASUREMENT = re.compile(r"^\s*\d+\s+\d+\s+[a-z]")


@dataclass(slots=True)
class _Log:
    """What the comment lines have told so far."""

    collective: str = ""
    columns: list[str] = field(default_factory=list)
    ranks: set[int] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    device: str = ""
    library: str = ""


def read_log(
    path: str | Path,
    *,
    collective: str = "",
    ranks: int = 0,
    nodes: int = 0,
    device: str = "",
    fabric: str = "",
) -> list[CollectiveRow]:
    """The measurements of a text or JSON log.

    What the log does not tell must be given: ``collective`` (taken from a ``…_perf`` in the log or the file
    name), ``ranks``, ``nodes`` and ``device`` (taken from the rank list). ``fabric`` describes the machine,
    as in "8xH100/node, 8x400G InfiniBand". Raises ValueError naming the file, the line and what is wrong with
    it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text (byte {error.start})") from None
    name = _collective_name(collective, path) if collective else ""
    told = _Log(collective=name, device=device)
    read = _read_json if text.lstrip().startswith("{") else _read_text
    rows = read(path, text, told)
    if not rows:
        raise ValueError(f"{path}: no measurement; a line of nccl-tests starts with size, count and type")
    return [_complete(row, told, path, ranks, nodes, fabric) for row in rows]


def _complete(
    row: CollectiveRow, told: _Log, path: Path, ranks: int, nodes: int, fabric: str
) -> CollectiveRow:
    count = ranks or len(told.ranks)
    collective = row.collective or told.collective or _in_name(path)
    if not count:
        raise ValueError(f"{path}: has no list of ranks ('#  Rank  0 …'); give the number of ranks")
    if not collective:
        raise ValueError(f"{path}: names no test such as all_reduce_perf; give the collective")
    return replace(
        row,
        collective=collective,
        ranks=count,
        nodes=nodes or max(1, len(told.hosts)),
        device=told.device,
        fabric=fabric,
        library=told.library,
    )


def _read_text(path: Path, text: str, told: _Log) -> list[CollectiveRow]:
    rows = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _PREFIX.sub("", raw)
        if line.lstrip().startswith("#") or not line.strip():
            _note(line.strip(), told)
        elif _MEASUREMENT.match(line):
            rows.append(_measurement(path, number, line.split(), told))
        else:
            _note(line, told)
    return rows


def _note(line: str, told: _Log) -> None:
    """Learn from a line that is no measurement."""
    rank = _RANK.match(line)
    if rank:
        told.ranks.add(int(rank[1]))
        told.hosts.add(rank[2])
        told.device = told.device or _device(rank[3])
    words = line.lstrip("# ").split()
    if words[:1] == ["size"] and "time" in words:
        told.columns = words
    test = _TEST.search(line)
    if test and test[1] in NAMES and not told.collective:
        told.collective = NAMES[test[1]]
    version = _VERSION.search(line)
    if version:
        told.library = version[1].split("+")[0]


def _measurement(path: Path, line: int, words: list[str], told: _Log) -> CollectiveRow:
    if not told.columns:
        raise ValueError(f"{path}:{line}: a measurement before the header ('#  size  count  type …  time …')")
    at = told.columns.index("time")
    if len(words) <= at:
        raise ValueError(
            f"{path}:{line}: {len(words)} columns, but the header puts the time in column {at + 1}"
        )
    try:
        size, microseconds = float(words[0]), float(words[at])
    except ValueError:
        raise ValueError(f"{path}:{line}: {words[at]!r} in column {at + 1} is not a time") from None
    return _row(f"{path}", line, size, microseconds, words[2])


def _read_json(path: Path, text: str, told: _Log) -> list[CollectiveRow]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    results = document.get("results")
    if not isinstance(results, list):
        raise ValueError(f"{path}: no list 'results'; the file nccl-tests writes with -J has one")
    _note(json.dumps({k: v for k, v in document.items() if k != "results"}), told)
    _note_ranks(document, told)
    rows = []
    for index, result in enumerate(results):
        place = f"results[{index}]"
        try:
            outside = result["out_of_place"]
            size, microseconds = float(result["size"]), float(outside["time"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {place}: needs size and out_of_place.time ({error})") from None
        rows.append(_row(f"{path}", 0, size, microseconds, str(result.get("type", ""))))
    return rows


def _note_ranks(document: dict[str, Any], told: _Log) -> None:
    """The rank list of a JSON log: objects with rank, hostname and device."""
    listed = document.get("ranks") or document.get("devices") or []
    for index, entry in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(entry, dict):
            told.ranks.add(int(entry.get("rank", index)))
            told.hosts.add(str(entry.get("hostname") or entry.get("host") or ""))
            told.device = told.device or _device(json.dumps(entry))


def _row(file: str, line: int, size: float, microseconds: float, dtype: str) -> CollectiveRow:
    if not microseconds > 0 or size < 0:
        where = f"{file}:{line}" if line else file
        raise ValueError(f"{where}: {size:g} B in {microseconds:g} us is not a measurement")
    return CollectiveRow(
        collective="",
        size_bytes=size,
        ranks=0,
        nodes=0,
        seconds=microseconds * 1e-6,
        dtype=dtype,
        file=file,
        line=line,
    )


def _device(text: str) -> str:
    return next((name for mark, name in _DEVICES if mark in text), "")


def _in_name(path: Path) -> str:
    return next((NAMES[n] for n in sorted(NAMES, key=len, reverse=True) if n in path.name), "")


def _collective_name(text: str, path: Path) -> str:
    if text not in NAMES:
        raise ValueError(f"{path}: collective {text!r} is not one of {', '.join(sorted(NAMES))}")
    return NAMES[text]


def table_lines(rows: Iterable[CollectiveRow]) -> list[list[str]]:
    """The rows as lines of a collective table, header first (see :mod:`calibration.fit_network.rows`)."""
    head = [
        "device",
        "collective",
        "dtype",
        "size_bytes",
        "nranks",
        "nodes",
        "time_us",
        "fabric",
        "nccl",
        "source",
    ]
    lines = [head]
    for r in rows:
        numbers = [f"{r.size_bytes:.0f}", str(r.ranks), str(r.nodes), f"{r.seconds * 1e6:.6g}"]
        lines.append([r.device, r.collective, r.dtype, *numbers, r.fabric, r.library, r.source])
    return lines
