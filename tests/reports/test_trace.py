"""Trace files hold to the trace-event format, and say what the events said."""

import gzip
import json
import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.trace import trace_records, write_trace
from simulator.result import TimelineEvent


def event(*values):
    return TimelineEvent(**dict(zip(TimelineEvent.__slots__, values, strict=True)))


STEP = [
    event("stage 0 (×1024 ranks)", "compute", "F0", "gemm", 0.0, 1.0),
    event("stage 0 (×1024 ranks)", "pp", "send F0", "pp", 1.0, 1.25),
    event("stage 1 (×1024 ranks)", "compute", "F0", "gemm", 1.25, 2.5),
]


def slices(document):
    return [record for record in document["traceEvents"] if record["ph"] == "X"]


def written(path: Path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        return json.load(stream)


@pytest.mark.parametrize("name", ["step.json", "step.json.gz"])
def test_a_written_trace_holds_every_event_in_microseconds(tmp_path, name):
    write_trace(tmp_path / name, STEP, {"run": "two stages"})
    document = written(tmp_path / name)
    assert document["otherData"] == {"run": "two stages"}
    found = [(e["name"], e["cat"], e["ts"], e["dur"]) for e in slices(document)]
    assert found == [("F0", "gemm", 0.0, 1e6), ("send F0", "pp", 1e6, 0.25e6), ("F0", "gemm", 1.25e6, 1.25e6)]


def test_processes_and_threads_are_named_before_they_are_used():
    named = {}
    for record in trace_records(STEP):
        if record["ph"] == "M" and record["name"].endswith("_name"):
            named[record["name"], record["pid"], record["tid"]] = record["args"]["name"]
        elif record["ph"] == "X":
            assert ("process_name", record["pid"], 0) in named
            assert ("thread_name", record["pid"], record["tid"]) in named
    assert sorted(named.values()) == [
        "compute", "compute", "pp", "stage 0 (×1024 ranks)", "stage 1 (×1024 ranks)"
    ]  # fmt: skip


@given(st.lists(st.floats(0, 30, allow_subnormal=False), min_size=1, max_size=40))
def test_slices_that_follow_each_other_never_overlap_and_end_with_the_step(durations):
    events, clock = [], 0.0
    for index, duration in enumerate(durations):
        events.append(event("stage 0", "compute", str(index), "gemm", clock, clock + duration))
        clock += duration
    found = [record for record in trace_records(events) if record["ph"] == "X"]
    for before, after in pairwise(found):
        assert round(1000 * (before["ts"] + before["dur"])) <= round(1000 * after["ts"])
    assert all(record["dur"] >= 0 for record in found)
    assert found[-1]["ts"] + found[-1]["dur"] == pytest.approx(clock * 1e6, abs=1e-3)


@pytest.mark.parametrize(("start", "end"), [(-1e-9, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_impossible_times_are_refused_and_leave_no_file(tmp_path, start, end):
    with pytest.raises(ValueError, match="must not start before 0 s or end before it starts"):
        write_trace(tmp_path / "t.json", [*STEP, event("p", "t", "n", "c", start, end)])
    assert list(tmp_path.iterdir()) == []


def test_equal_events_give_equal_bytes(tmp_path):
    for name in ("a.json.gz", "b.json.gz"):
        write_trace(tmp_path / name, STEP)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_a_file_is_replaced_as_a_whole_and_a_link_to_it_stays(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    write_trace(link, STEP)
    assert link.is_symlink()
    assert len(slices(written(real))) == len(STEP)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]


def test_a_device_is_written_to_not_replaced():
    write_trace(Path(os.devnull), STEP)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_trace(tmp_path / "nowhere" / "t.json", STEP)


def test_a_folder_is_not_a_file_to_write(tmp_path):
    with pytest.raises(IsADirectoryError) as raised:
        write_trace(tmp_path, STEP)
    assert raised.value.filename == str(tmp_path)
