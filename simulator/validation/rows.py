"""Tables of published measurements: reading, checking, and the tables that ship."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any, get_type_hints

from simulator.spec.errors import ABSENT, Problem, SpecError, listed, nearest
from simulator.spec.text_file import read_text
from simulator.validation.foreign_table import COLUMNS as FOREIGN_COLUMNS
from simulator.validation.foreign_table import file_column, translate
from simulator.validation.published import CONFIDENCES, PARTS, PublishedRun

Cells = Mapping[str, str]
LIST_SEPARATOR = "+"
MAX_BYTES = 64 * 2**20


def shipped_rows() -> list[PublishedRun]:
    """Every row of ``workloads/published``, tables in the order of their names."""
    folder = resources.files("workloads").joinpath("published")
    tables = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".csv")), key=lambda entry: entry.name
    )
    rows: list[PublishedRun] = []
    for table in tables:
        rows += parse_rows(table.read_text(encoding="utf-8"), f"workloads/published/{table.name}")
    return rows


def read_rows(path: str | Path) -> list[PublishedRun]:
    """The rows of a CSV, in the project's columns or in those of :mod:`simulator.validation.foreign_table`.

    Raises:
        SpecError: the file cannot be read, or every cell that cannot be understood, with its place.
    """
    return parse_rows(read_text(Path(path), "a CSV table", (".csv",), most=MAX_BYTES), str(path))


def parse_rows(text: str, file: str) -> list[PublishedRun]:
    """The rows of a table's text; ``file`` is for messages. Raises SpecError."""
    reader = csv.DictReader(text.splitlines(keepends=True))
    header = tuple(reader.fieldnames or ())
    prepare = _form(header, file)
    column = file_column if prepare is translate else str
    rows, problems = list[PublishedRun](), list[Problem]()
    for cells in reader:
        try:
            checked = _cells(cells, file, reader.line_num)
            rows.append(_row(prepare(checked), file, reader.line_num, column))
        except SpecError as error:
            problems += error.problems
    problems += _repeated(rows)
    if problems:
        raise SpecError(*problems)
    return rows


def write_rows(rows: Iterable[PublishedRun], path: Path) -> None:
    """The rows in the project's columns; columns that no row fills are left out."""
    filled = [{name: text for name, text in _texts(row) if text} for row in rows]
    names = [name for name in _columns() if any(name in cells for cells in filled)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(filled)


@cache
def _columns() -> dict[str, tuple[str, object, bool]]:
    """Every column of the project's form: its part, the type of its cells, and whether it must be filled."""
    return {
        field.name: (name, get_type_hints(part)[field.name], field.default is MISSING)
        for name, part in PARTS.items()
        for field in fields(part)
    }


def _form(header: tuple[str, ...], file: str) -> Callable[[Cells], Cells]:
    """How a table's cells become the project's: as they are, or translated."""
    if not header:
        raise SpecError(Problem(file=file, rule="must be a CSV table with a header line; the file is empty"))
    own, foreign = _columns(), FOREIGN_COLUMNS
    unknown_own = [name for name in header if name not in own]
    unknown_foreign = [name for name in header if name not in foreign]
    known, unknown, prepare = (
        (own, unknown_own, _unchanged)
        if len(unknown_own) <= len(unknown_foreign)
        else (foreign, unknown_foreign, translate)
    )
    named = str if prepare is _unchanged else file_column
    required = [named(name) for name, (_, _, must) in own.items() if must and named(name) in known]
    problems = [
        Problem(
            file=file, line=1, key_path=name, rule="is not a known column", suggestion=nearest(name, known)
        )
        for name in unknown
    ]
    problems += [
        Problem(file=file, line=1, key_path=name, rule="this column is missing")
        for name in required
        if name not in header
    ]
    if problems:
        raise SpecError(*problems)
    return prepare


def _unchanged(cells: Cells) -> Cells:
    return cells


def _cells(cells: dict[str | Any, Any], file: str, line: int) -> dict[str, str]:
    """The stripped cells of one line. Raises SpecError where it is longer or shorter than the header."""
    if None in cells or None in cells.values():
        rule = "must have as many cells as the header has columns"
        raise SpecError(Problem(file=file, line=line, rule=rule))
    return {name: value.strip() for name, value in cells.items()}


def _row(cells: Cells, file: str, line: int, column: Callable[[str], str]) -> PublishedRun:
    """One row; ``column`` gives the file's own name of a column, for messages. Raises SpecError."""
    problems = list[Problem]()
    parts: dict[str, dict[str, object]] = {part: {} for part in PARTS}
    for name, (part, kind, required) in _columns().items():
        text = cells.get(name, "")
        try:
            if text:
                parts[part][name] = _value(text, kind)
            elif required:
                raise ValueError("must be given")
        except ValueError as error:
            value, rule = text or ABSENT, str(error)
            problems.append(Problem(file=file, line=line, key_path=column(name), value=value, rule=rule))
    problems += _impossible(cells, file, line)
    if problems:
        raise SpecError(*problems)
    made = {name: part(**parts[name]) for name, part in PARTS.items()}
    return PublishedRun(**made, where=f"{file}:{line}")


def _impossible(cells: Cells, file: str, line: int) -> Iterator[Problem]:
    confidence = cells.get("confidence", "")
    if confidence and confidence not in CONFIDENCES:
        rule = f"must be {listed(CONFIDENCES)}"
        yield Problem(file=file, line=line, key_path="confidence", value=confidence, rule=rule)


def _value(text: str, kind: object) -> object:
    """A cell as its column's type. Raises ValueError with the rule it breaks."""
    if kind is str:
        return text
    if kind == tuple[str, ...]:
        return tuple(text.split(LIST_SEPARATOR))
    if kind in (bool | None, bool):
        if text.lower() not in {"true", "false"}:
            raise ValueError("must be True or False")
        return text.lower() == "true"
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if kind in (int | None, int):
        if not isfinite(number) or number % 1 or number < 0:
            raise ValueError("must be a whole number, zero or more")
        return int(number)
    if not 0 < number < float("inf"):
        raise ValueError("must be a number above zero")
    return number


def _texts(row: PublishedRun) -> Iterator[tuple[str, str]]:
    for part in PARTS:
        held = getattr(row, part)
        for field in fields(held):
            value = getattr(held, field.name)
            if value is None or value == "":
                continue
            joined = LIST_SEPARATOR.join(value) if isinstance(value, tuple) else str(value)
            yield field.name, joined


def _repeated(rows: list[PublishedRun]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for row in rows:
        if row.run_id in seen:
            file, _, line = row.where.rpartition(":")
            rule = f"must be unique; {seen[row.run_id]} has it too"
            yield Problem(file=file, line=int(line), key_path="run_id", value=row.run_id, rule=rule)
        seen.setdefault(row.run_id, row.where)
