"""Traces of simulated runs hold to the trace-event format, from the first slice to the end of the step."""

import gzip
import json
import re
from collections import defaultdict
from itertools import pairwise
from math import isfinite

import pytest

from reports.trace import trace_records, write_trace

REQUIRED = {
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "M": {"name", "pid", "tid", "ts", "args"},
    "s": {"name", "cat", "id", "pid", "tid", "ts"},
    "f": {"name", "cat", "id", "pid", "tid", "ts", "bp"},
    "C": {"name", "pid", "ts", "args"},
}


@pytest.fixture
def records(pictured):
    _, result = pictured
    return list(trace_records(result.timeline, result.details))


def threads(records):
    found = defaultdict(list)
    for record in records:
        if record["ph"] == "X":
            found[record["pid"], record["tid"]].append((record["ts"], record["ts"] + record["dur"]))
    return found


def ns(microseconds):
    return round(1000 * microseconds)


def test_every_record_is_complete_and_none_is_before_the_step(records):
    for record in records:
        assert set(record) - {"ph"} == REQUIRED[record["ph"]]
        assert record["ts"] >= 0
        assert record.get("dur", 0) >= 0


def test_the_last_slice_ends_with_the_step(pictured, records):
    _, result = pictured
    ends = [end for spans in threads(records).values() for _, end in spans]
    assert max(ends) == pytest.approx(result.step_time_s * 1e6, abs=1e-3)


def test_slices_of_a_thread_never_overlap(records):
    for spans in threads(records).values():
        for before, after in pairwise(sorted(spans)):
            assert round(1000 * before[1]) <= round(1000 * after[0])


def test_flows_come_in_pairs_that_begin_with_slices_and_point_forward(records):
    begins = {(pid, tid, begin) for (pid, tid), spans in threads(records).items() for begin, _ in spans}
    sources = {record["id"]: record for record in records if record["ph"] == "s"}
    targets = {record["id"]: record for record in records if record["ph"] == "f"}
    assert len(sources) == sum(record["ph"] == "s" for record in records)
    assert sources.keys() == targets.keys()
    for number, source in sources.items():
        target = targets[number]
        assert (source["name"], source["cat"]) == (target["name"], target["cat"])
        assert source["ts"] <= target["ts"]
        assert target["bp"] == "e"
        for end in (source, target):
            assert (end["pid"], end["tid"], end["ts"]) in begins


def test_an_arrow_ends_inside_the_one_slice_that_is_open_there(records):
    """Viewers read by time, then by place in the file, and drop an arrow where no slice is open."""
    spans = {
        thread: [(ns(begin), ns(end)) for begin, end in found] for thread, found in threads(records).items()
    }
    place = {id(record): index for index, record in enumerate(records)}
    last_slice = max(place[id(record)] for record in records if record["ph"] == "X")
    sources = {record["id"]: record for record in records if record["ph"] == "s"}
    for record in records:
        if record["ph"] not in "sf":
            continue
        assert place[id(record)] > last_slice
        thread, now = (record["pid"], record["tid"]), ns(record["ts"])
        assert sum(begin <= now < end for begin, end in spans[thread]) == 1
        if record["ph"] == "f":
            assert place[id(sources[record["id"]])] < place[id(record)]


def test_courses_of_counters_go_forward_in_time(records):
    courses = defaultdict(list)
    for record in records:
        if record["ph"] == "C":
            courses[record["pid"], record["name"]].append(record["ts"])
            assert all(type(value) in (int, float) and isfinite(value) for value in record["args"].values())
    assert all(before < after for times in courses.values() for before, after in pairwise(times))


def test_numbers_and_names_are_what_viewers_take(records):
    """Whole numbers for processes and threads, none of them 0; whole nanoseconds; a name for everything."""
    for record in records:
        assert isinstance(record["name"], str) and record["name"]
        assert isinstance(record["pid"], int) and record["pid"] > 0
        assert isinstance(record.get("tid", 1), int)
        assert record.get("tid", 1) > 0 or record["ph"] == "M"
        for moment in (record["ts"], record.get("dur", 0)):
            assert 1000 * moment == pytest.approx(ns(moment), abs=1e-5)
        assert isinstance(record.get("cat", ""), str)


def test_every_process_and_thread_is_named_and_placed_once(records):
    metadata = [(r["name"], r["pid"], r["tid"]) for r in records if r["ph"] == "M"]
    assert len(metadata) == len(set(metadata))
    for pid, tid in threads(records):
        assert {
            ("process_name", pid, 0),
            ("process_sort_index", pid, 0),
            ("thread_name", pid, tid),
            ("thread_sort_index", pid, tid),
        } <= set(metadata)


def test_counters_name_their_unit_and_belong_to_a_named_process(records):
    named = {record["pid"] for record in records if record["name"] == "process_name"}
    links = ("nic out", "nic in", "scale-up out", "scale-up in")
    units = {"memory": {"GiB"}} | {link: {"GB/s"} for link in links}
    for record in records:
        if record["ph"] == "C":
            assert record["pid"] in named
            assert set(record["args"]) == units[record["name"]]
    assert any(record["ph"] == "C" for record in records)


def test_a_rank_class_is_a_process_and_a_stream_a_thread(interleaved):
    run, result = interleaved
    names = defaultdict(set)
    for record in trace_records(result.timeline, result.details):
        if record["ph"] == "M" and record["name"].endswith("_name"):
            names[record["name"]].add(record["args"]["name"])
    ranks = run.gpus // run.parallelism.pp
    stages = {f"stage {stage} (×{ranks} ranks)" for stage in range(run.parallelism.pp)}
    assert names["process_name"] == stages
    assert {"compute", "send activations", "send gradients", "dp"} <= names["thread_name"]


def test_operators_are_slices_where_they_are_asked_for(records, pictured):
    run, _ = pictured
    shown = {record["name"] for record in records if record["ph"] == "X"}
    blocks = any(re.match(r"[FB]\d", name) for name in shown)
    assert blocks == (run.simulation.detail == "block")
    assert "core_attn" in shown or blocks


def test_a_file_holds_arrows_and_counters_too(interleaved, tmp_path):
    _, result = interleaved
    write_trace(tmp_path / "t.json.gz", result.timeline, None, result.details)
    with gzip.open(tmp_path / "t.json.gz", "rt", encoding="utf-8") as stream:
        document = json.load(stream, parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    assert document["displayTimeUnit"] in ("ms", "ns")
    kinds = {record["ph"] for record in document["traceEvents"]}
    assert kinds == {"M", "X", "s", "f", "C"}
