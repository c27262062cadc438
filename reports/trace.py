"""Timelines as Chrome trace events, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Format: "Trace Event Format" by the Chromium project. Complete events (``ph: X``) with times in microseconds;
a process stands for a rank class, a thread for one of its streams; metadata events (``ph: M``) name both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reports.files import replacing
from simulator.result import TimelineEvent

NANOSECONDS = 1e9


def write_trace(path: Path, events: Iterable[TimelineEvent], about: dict[str, Any] | None = None) -> None:
    """Write ``events`` as a trace file, compressed when the name ends in ``.gz``.

    Args:
        path: the file to replace.
        events: slices in any order; those of one thread must not overlap.
        about: what else to keep in the file (``otherData``): the run, versions.

    Raises:
        OSError: the file cannot be written.
        ValueError: an event starts before 0 or ends before it starts.
    """
    with replacing(path) as stream:
        stream.write('{"displayTimeUnit": "ms", "otherData": ')
        json.dump(about or {}, stream, default=str)
        stream.write(', "traceEvents": [')
        for index, record in enumerate(trace_records(events)):
            stream.write("\n" if index == 0 else ",\n")
            stream.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
        stream.write("\n]}\n")


def trace_records(events: Iterable[TimelineEvent]) -> Iterator[dict[str, Any]]:
    """The trace-event objects of ``events``; processes and threads are numbered as they first appear.

    Times are rounded to whole nanoseconds before durations are taken: slices that touch still touch.
    """
    processes: dict[str, int] = {}
    threads: dict[tuple[str, str], int] = {}
    for event in events:
        if not 0.0 <= event.start_s <= event.end_s:
            raise ValueError(f"{event}: a slice must not start before 0 s or end before it starts")
        if event.process not in processes:
            processes[event.process] = len(processes) + 1
            yield from _names("process", event.process, processes[event.process], 0)
        pid = processes[event.process]
        key = (event.process, event.thread)
        if key not in threads:
            threads[key] = 1 + sum(process == event.process for process, _ in threads)
            yield from _names("thread", event.thread, pid, threads[key])
        start_ns = round(event.start_s * NANOSECONDS)
        end_ns = round(event.end_s * NANOSECONDS)
        yield {
            "ph": "X",
            "name": event.name,
            "cat": event.category,
            "pid": pid,
            "tid": threads[key],
            "ts": start_ns / 1000,
            "dur": (end_ns - start_ns) / 1000,
        }


def _names(kind: str, name: str, pid: int, tid: int) -> Iterator[dict[str, Any]]:
    """The metadata of a process or thread: its name, and its place in order of appearance."""
    common = {"ph": "M", "pid": pid, "tid": tid, "ts": 0}
    yield {**common, "name": f"{kind}_name", "args": {"name": name}}
    yield {**common, "name": f"{kind}_sort_index", "args": {"sort_index": pid if kind == "process" else tid}}
