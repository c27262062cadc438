"""Finished evaluations, each kept at once in an SQLite file, so that nothing is computed twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from simulator.spec.errors import Problem, SpecError
from simulator.sweep.evaluation import Evaluation
from simulator.sweep.lock import DirectoryLock

DATABASE: Final = "results.sqlite"
MEMORY: Final = ":memory:"
_JSON: Final = frozenset({"labels", "breakdown_s"})
_COLUMNS: Final = tuple(field.name for field in fields(Evaluation))
_SCHEMA: Final = f"""
create table if not exists about (key text primary key, value text not null);
create table if not exists evaluation (
  number integer primary key, {", ".join(f"{name} not null" for name in _COLUMNS[1:])}
);
"""


class Store:
    """The results of one sweep. Use it as a context manager.

    One process writes; every :meth:`add` is a transaction of its own, complete in the file whatever happens
    to the process afterwards.
    """

    def __init__(self, directory: Path | None, fingerprint: str, *, resume: bool) -> None:
        """``directory`` None keeps results in memory only.

        Raises SpecError for a directory with content without ``resume``, in use by another process, or with
        results of another sweep or version.
        """
        self.directory = directory
        with ExitStack() as opened:
            if directory is not None:
                _prepare(directory, resume=resume)
                opened.callback(DirectoryLock(directory).release)
            self._database = opened.enter_context(closing(connect(directory)))
            with self._transaction():
                self._database.executescript(_SCHEMA)
            self._claim(fingerprint)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and lets go of the directory."""
        self._opened.close()

    def add(self, evaluations: Iterable[Evaluation]) -> None:
        """Keeps finished evaluations, all or none of them. Raises SpecError where the disk is full."""
        marks = ", ".join("?" * len(_COLUMNS))
        with self._transaction():
            self._database.executemany(
                f"insert into evaluation values ({marks})", (_row(evaluation) for evaluation in evaluations)
            )

    def numbers(self) -> set[int]:
        """The layouts that have been evaluated."""
        return {number for (number,) in self._database.execute("select number from evaluation")}

    def evaluations(self) -> Iterator[Evaluation]:
        """Everything kept, by number."""
        return read_evaluations(self._database)

    def note(self, key: str, value: Any) -> None:
        """Keeps a fact about the sweep, as JSON. Raises SpecError where the disk is full."""
        with self._transaction():
            self._database.execute("insert or replace into about values (?, ?)", (key, json.dumps(value)))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._database:
                yield
        except sqlite3.OperationalError as error:
            rule, remedy = f"cannot be written: {error}", "make room, then --resume"
            raise SpecError(Problem(file=str(self.directory), rule=rule, suggestion=remedy)) from None

    def _claim(self, fingerprint: str) -> None:
        """Raises SpecError where the results are not of this sweep and this version."""
        known = dict(self._database.execute("select key, value from about"))
        for key, ours, what in (
            ("version", own_version(), "another version of stepcast"),
            ("fingerprint", fingerprint, "another sweep file (or other --set values)"),
        ):
            if key not in known:
                self.note(key, ours)
            elif json.loads(known[key]) != ours:
                theirs = f" ({json.loads(known[key])}; this is {ours})" if key == "version" else ""
                rule = f"holds results of {what}{theirs}"
                raise SpecError(Problem(file=str(self.directory), rule=rule, suggestion="another -o DIR"))


def connect(directory: Path | None) -> sqlite3.Connection:
    """The database of a directory. Raises SpecError where the file is no database."""
    path = MEMORY if directory is None else str(directory / DATABASE)
    database = sqlite3.connect(path)
    try:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
    except sqlite3.DatabaseError as error:
        database.close()
        raise SpecError(Problem(file=path, rule=f"cannot be read as a database: {error}")) from None
    return database


def read_evaluations(database: sqlite3.Connection) -> Iterator[Evaluation]:
    """Every evaluation of a database, by number."""
    for row in database.execute(f"select {', '.join(_COLUMNS)} from evaluation order by number"):
        values = {name: json.loads(v) if name in _JSON else v for name, v in zip(_COLUMNS, row, strict=True)}
        yield Evaluation(**{**values, "labels": tuple(values["labels"])})


def own_version() -> str:
    """The version that results belong to."""
    try:
        return version("stepcast")
    except PackageNotFoundError:
        return "uninstalled"


def _row(evaluation: Evaluation) -> tuple[Any, ...]:
    values = ((name, getattr(evaluation, name)) for name in _COLUMNS)
    return tuple(json.dumps(value) if name in _JSON else value for name, value in values)


def _prepare(directory: Path, *, resume: bool) -> None:
    """Makes the directory, or raises SpecError where it must not be written to."""
    if directory.exists() and not directory.is_dir():
        raise SpecError(Problem(file=str(directory), rule="is a file; -o takes a directory"))
    if directory.exists() and any(directory.iterdir()) and not resume:
        rule, remedy = "has content", "--resume to continue a sweep in it, or another directory"
        raise SpecError(Problem(file=str(directory), rule=rule, suggestion=remedy))
    if resume and directory.exists() and any(directory.iterdir()) and not (directory / DATABASE).exists():
        rule = f"holds no {DATABASE}, so there is no sweep to resume"
        raise SpecError(Problem(file=str(directory), rule=rule, suggestion="another directory"))
    directory.mkdir(parents=True, exist_ok=True)
