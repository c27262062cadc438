"""Timelines as Chrome trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format" by the Chromium project. Complete events (``ph: X``) with times in microseconds;
a process stands for a rank class, a thread for one of its streams; metadata events (``ph: M``) name both.
Flow events in pairs (``ph: s`` and ``f``) join a message or collective to what started it and what waited
for it; counter events (``ph: C``) follow memory and links.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reports.files import replacing
from simulator.details import Arrow, Counter, Details
from simulator.result import TimelineEvent

NANOSECONDS = 1e9
UNITS = {"bytes": ("GiB", 2.0**30), "bytes/s": ("GB/s", 1e9)}  # of counters: as shown


def write_trace(
    path: Path,
    events: Iterable[TimelineEvent],
    about: dict[str, Any] | None = None,
    details: Details | None = None,
) -> None:
    """Write ``events`` as a trace file, compressed when the name ends in ``.gz``.

    Args:
        path: the file to replace.
        events: slices in any order; those of one thread must not overlap.
        about: what else to keep in the file (``otherData``): the run, versions.
        details: of the same result, for arrows and counters.

    Raises:
        OSError: the file cannot be written.
        ValueError: an event starts before 0 or ends before it starts.
    """
    with replacing(path) as stream:
        stream.write('{"displayTimeUnit": "ms", "otherData": ')
        json.dump(about or {}, stream, default=str)
        stream.write(', "traceEvents": [')
        for index, record in enumerate(trace_records(events, details)):
            stream.write("\n" if index == 0 else ",\n")
            stream.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        stream.write("\n]}\n")


def trace_records(
    events: Iterable[TimelineEvent], details: Details | None = None
) -> Iterator[dict[str, Any]]:
    """The trace-event objects of ``events``; processes and threads are numbered as they first appear.

    Times are rounded to whole nanoseconds before durations are taken: slices that touch still touch.
    """
    numbers = _Numbers()
    places: list[_Place] = []
    for event in events:
        if not 0.0 <= event.start_s <= event.end_s:
            raise ValueError(f"{event}: a slice must not start before 0 s or end before it starts")
        yield from numbers.introduce(event.process, event.thread)
        pid, tid = numbers.of(event.process, event.thread)
        start_ns = round(event.start_s * NANOSECONDS)
        end_ns = round(event.end_s * NANOSECONDS)
        places.append(_Place(pid, tid, start_ns / 1000))
        yield {
            "ph": "X",
            "name": event.name,
            "cat": event.category,
            "pid": pid,
            "tid": tid,
            "ts": start_ns / 1000,
            "dur": (end_ns - start_ns) / 1000,
        }
    if details is not None:
        for number, arrow in enumerate(details.arrows):
            yield from _flow(number, arrow, places)
        for counter in details.counters:
            yield from numbers.introduce(counter.process)
            yield from _counter(counter, numbers.of(counter.process)[0])


class _Place(NamedTuple):
    """Where a slice begins: process, thread, microseconds."""

    pid: int
    tid: int
    ts: float


class _Numbers:
    """Processes and threads, numbered from 1 as they appear; thread 0 is the process itself."""

    def __init__(self) -> None:
        self._processes: dict[str, dict[str, int]] = {}
        self._pids: dict[str, int] = {}

    def of(self, process: str, thread: str = "") -> tuple[int, int]:
        """The numbers of a process and of one of its threads."""
        return self._pids[process], self._processes[process].get(thread, 0)

    def introduce(self, process: str, thread: str = "") -> Iterator[dict[str, Any]]:
        """Metadata of what has not been seen yet."""
        if process not in self._pids:
            self._pids[process] = len(self._pids) + 1
            self._processes[process] = {}
            yield from _names("process", process, self._pids[process], 0)
        threads = self._processes[process]
        if thread and thread not in threads:
            threads[thread] = len(threads) + 1
            yield from _names("thread", thread, self._pids[process], threads[thread])


def _names(kind: str, name: str, pid: int, tid: int) -> Iterator[dict[str, Any]]:
    """The metadata of a process or thread: its name, and its place in order of appearance."""
    common = {"ph": "M", "pid": pid, "tid": tid, "ts": 0}
    yield {**common, "name": f"{kind}_name", "args": {"name": name}}
    yield {**common, "name": f"{kind}_sort_index", "args": {"sort_index": pid if kind == "process" else tid}}


def _flow(number: int, arrow: Arrow, places: list[_Place]) -> Iterator[dict[str, Any]]:
    """An arrow from one slice to another; viewers find the slices by thread and time."""
    common = {"name": arrow.name, "cat": arrow.category, "id": number}
    yield {"ph": "s", **common, **places[arrow.source]._asdict()}
    yield {"ph": "f", "bp": "e", **common, **places[arrow.target]._asdict()}


def _counter(counter: Counter, pid: int) -> Iterator[dict[str, Any]]:
    """The course of a quantity; of values within a nanosecond the last one."""
    unit, factor = UNITS[counter.unit]
    course = {
        round(time * NANOSECONDS): value for time, value in zip(counter.times_s, counter.values, strict=True)
    }
    for nanoseconds, value in course.items():
        yield {
            "ph": "C",
            "name": counter.name,
            "pid": pid,
            "ts": nanoseconds / 1000,
            "args": {unit: round(value / factor, 4)},
        }
