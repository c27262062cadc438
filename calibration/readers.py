"""Reading measurement tables: CSV, plain or gzipped, one kind of kernel per file, told by its header."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.spec.errors import Problem, SpecError

Column = npt.NDArray[Any]

_TEXT, _NUMBER, _SIZE = "text", "number", "size"


def _columns(*, text: str = "", sizes: str = "", numbers: str = "") -> dict[str, str]:
    """Columns by what they hold: words, numbers more than zero, numbers of zero and more."""
    held = ((text, _TEXT), (sizes, _SIZE), (numbers, _NUMBER), ("time_us", _SIZE))
    return {name: what for names, what in held for name in names.split()}


# kind of table -> the columns it must have; others are kept as text
KINDS = {
    "gemm": _columns(text="dtype", sizes="m n k"),
    "gemm_training": _columns(text="gpu dtype layout accumulate out_dtype", sizes="b m n k"),
    "grouped_gemm_training": _columns(text="gpu dtype stage out_dtype", sizes="num_groups m_per_group n k"),
    "attention": _columns(
        text="dtype kv_dtype direction", sizes="batch seq heads kv_heads head_dim", numbers="causal window"
    ),
    "attention_training": _columns(
        text="gpu dtype direction",
        sizes="batch seq heads kv_heads qk_head_dim v_head_dim",
        numbers="causal",
    ),
    "moe": _columns(
        text="dtype distribution kernel",
        sizes="num_tokens hidden_size inter_size topk num_experts moe_tp_size moe_ep_size",
    ),
    "quantize": _columns(text="op quant_dtype", sizes="m k"),
    "memory_bound": _columns(text="kind", sizes="kernels", numbers="read_bytes write_bytes"),
    "copy": _columns(text="kind", sizes="size_bytes"),
    "collective": _columns(text="collective dtype", sizes="size_bytes nranks nodes"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Measurements of one kind. ``columns`` are arrays of one length; ``lines`` are their lines in the
    file."""

    kind: str
    path: str
    columns: dict[str, Column]
    lines: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """Measured times."""
        return np.asarray(self.columns["time_us"] * 1e-6)

    @property
    def source(self) -> Column:
        """Who measured each row; the file's name where the table does not say."""
        if "source" in self.columns:
            return self.columns["source"]
        return np.full(len(self), Path(self.path).name)

    def where(self, chosen: npt.NDArray[np.bool_]) -> Table:
        """The rows chosen by a mask."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Table(kind=self.kind, path=self.path, columns=columns, lines=self.lines[chosen])


def read_table(path: str | Path) -> Table:
    """A measurement table. Raises SpecError naming file, line, column and value where it is not one."""
    path = Path(path)
    rows, lines = _rows(path)
    if not rows:
        raise _wrong(path, 0, "is empty; a measurement table starts with a header line")
    header = rows[0]
    kind = _kind(path, header)
    body, lines = rows[1:], lines[1:]
    for row, line in zip(body, lines, strict=True):
        if len(row) != len(header):
            raise _wrong(path, line, f"has {len(row)} fields; the header has {len(header)}")
    by_column = list(zip(*body, strict=True)) if body else [()] * len(header)
    held = KINDS[kind]
    columns = {
        name: _column(path, name, held.get(name, _TEXT), values, lines)
        for name, values in zip(header, by_column, strict=True)
    }
    return Table(kind=kind, path=str(path), columns=columns, lines=np.asarray(lines, dtype=np.int64))


def _rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """The file's rows and their line numbers, blank lines left out."""
    rows: list[list[str]] = []
    lines: list[int] = []
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except FileNotFoundError as error:
        raise _wrong(path, 0, "no such file") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, csv.Error, UnicodeDecodeError) as error:
        line = lines[-1] + 1 if lines else 1
        raise _wrong(path, line, f"unreadable ({error}): the file is damaged or cut off") from error
    return rows, lines


def _kind(path: Path, header: list[str]) -> str:
    """The kind whose columns the header has; the one with most columns where several fit."""
    fitting = [kind for kind, columns in KINDS.items() if set(columns) <= set(header)]
    if not fitting:
        nearest = max(KINDS, key=lambda kind: len(set(KINDS[kind]) & set(header)) / len(KINDS[kind]))
        missing = sorted(set(KINDS[nearest]) - set(header))
        rule = f"the header must be that of a known table: {', '.join(KINDS)}"
        raise _wrong(path, 1, rule, f"{nearest}, which also needs {', '.join(missing)}")
    return max(fitting, key=lambda kind: len(KINDS[kind]))


def _column(path: Path, name: str, held: str, values: tuple[str, ...], lines: list[int]) -> Column:
    if held == _TEXT:
        return np.asarray(values, dtype=str)
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except ValueError:
        numbers = np.asarray([_number(path, name, *pair) for pair in zip(values, lines, strict=True)])
    lowest = 0.0 if held == _NUMBER else np.nextafter(0.0, 1.0)
    wrong = ~(np.isfinite(numbers) & (numbers >= lowest))
    if wrong.any():
        first = int(np.argmax(wrong))
        rule = "zero or more" if held == _NUMBER else "more than zero"
        raise _wrong(path, lines[first], f"{name} is {values[first]!r}; it must be {rule}")
    return numbers


def _number(path: Path, name: str, value: str, line: int) -> float:
    try:
        return float({"True": "1", "False": "0"}.get(value, value))
    except ValueError:
        raise _wrong(path, line, f"{name} is {value!r}; it must be a number") from None


def _wrong(path: Path, line: int, rule: str, suggestion: str = "") -> SpecError:
    return SpecError(Problem(file=str(path), line=line, rule=rule, suggestion=suggestion))
