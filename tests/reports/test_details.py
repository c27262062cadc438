"""What pictures show agrees with the numbers they stand beside."""

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest

from simulator import load_run, simulate


def test_a_plain_simulation_carries_no_pictures():
    result = simulate(load_run("llama3-8b-8-h100"))
    assert result.details is None
    assert result.timeline == ()


def test_pictures_change_no_number(pictured):
    run, result = pictured
    plain = simulate(run)
    assert result.step_time_s == pytest.approx(plain.step_time_s, rel=1e-9)
    assert result.breakdown_s == pytest.approx(plain.breakdown_s, rel=1e-6, abs=1e-9)


def test_every_action_of_the_schedule_is_shown_once(pictured):
    run, result = pictured
    shown = {(w.kind, w.stage, w.microbatch, w.direction) for w in result.details.work}
    stages = run.parallelism.pp * run.parallelism.vp
    kinds = Counter(kind for kind, *_ in shown)
    assert kinds["F"] == stages * run.microbatches
    assert kinds["B"] + kinds["W"] == stages * run.microbatches
    assert kinds["I"] == kinds["W"]


def test_work_lies_within_the_step_and_never_overlaps_but_in_pairs(pictured):
    _, result = pictured
    rows = defaultdict(set)
    for piece in result.details.work:
        assert 0 <= piece.start_s < piece.end_s <= result.step_time_s * (1 + 1e-12)
        rows[piece.device].add((piece.start_s, piece.end_s))
    for spans in rows.values():
        assert all(before[1] <= after[0] + 1e-12 for before, after in pairwise(sorted(spans)))


def test_shown_work_is_the_busy_time_of_the_breakdown(pictured):
    _, result = pictured
    idle = ("bubble", "optimizer", "exposed_pp", "exposed_dp")
    busy = sum(value for cause, value in result.breakdown_s.items() if cause not in idle)
    devices = len(result.memory["stages"])
    spans = {(piece.device, piece.start_s, piece.end_s) for piece in result.details.work}
    shown = sum(end - start for _, start, end in spans) / devices
    assert shown == pytest.approx(busy, rel=0.02)


def test_memory_over_time_peaks_where_the_report_says(pictured):
    _, result = pictured
    counters = [counter for counter in result.details.counters if counter.name == "memory"]
    peaks = [max(counter.values) for counter in counters]
    assert peaks == pytest.approx([stage["peak_bytes"] for stage in result.memory["stages"]], rel=1e-9)
    for counter, stage in zip(counters, result.memory["stages"], strict=True):
        resting = stage["peak_bytes"] - stage["activations"]
        assert counter.values[-1] == pytest.approx(resting, rel=1e-9)
        assert list(counter.times_s) == sorted(set(counter.times_s))


def test_links_are_never_fuller_than_full_and_end_empty(pictured):
    _, result = pictured
    for counter in result.details.counters:
        if counter.unit == "bytes/s":
            assert max(counter.values) <= counter.capacity * (1 + 1e-9)
            assert min(counter.values) >= 0
            assert counter.values[-1] == 0


def test_what_leaves_the_nics_of_a_pipeline_arrives_at_others(interleaved):
    _, result = interleaved
    moved = Counter()
    for counter in result.details.counters:
        if counter.unit == "bytes/s":
            lengths = [after - before for before, after in pairwise(counter.times_s)]
            moved[counter.name] += sum(rate * s for rate, s in zip(counter.values, lengths, strict=False))
    assert moved["nic out"] == pytest.approx(moved["nic in"], rel=1e-9)
    assert moved["nic out"] > 0


def test_arrows_point_forward_between_streams(pictured):
    _, result = pictured
    events = result.timeline
    for arrow in result.details.arrows:
        source, target = events[arrow.source], events[arrow.target]
        assert (source.process, source.thread) != (target.process, target.thread)
        assert source.end_s <= target.start_s + 1e-12 or source.start_s == pytest.approx(target.start_s)


def test_every_message_between_stages_has_an_arrow_to_its_receiver(interleaved):
    _, result = interleaved
    events = result.timeline
    sends = {index for index, event in enumerate(events) if event.name == "send"}
    received = {
        arrow.source
        for arrow in result.details.arrows
        if events[arrow.source].process != events[arrow.target].process
    }
    assert sends
    assert sends <= received


def test_exposed_communication_is_that_of_the_breakdown_and_never_more_than_there_is(pictured):
    _, result = pictured
    for axis, use in result.details.communication.items():
        assert use.exposed_s == result.breakdown_s.get(f"exposed_{axis}", 0.0)
        assert use.exposed_s <= use.total_s


def test_operators_take_the_busy_time_of_the_breakdown(interleaved):
    _, result = interleaved
    spent = Counter()
    for use in result.details.operators:
        spent[use.category] += use.runs * use.seconds
    for kernel in ("attention", "grouped_gemm", "norm"):
        assert spent[kernel] == pytest.approx(result.breakdown_s[kernel], rel=1e-6)


def test_groups_sit_where_the_layout_puts_them(interleaved):
    run, result = interleaved
    groups = result.details.groups
    assert groups["ep"].domains == 1
    assert groups["pp"].ranks == run.parallelism.pp
    assert groups["dp"].tier == run.cluster.scale_out.tiers[0].name
    assert "tp" not in groups


def test_json_keeps_to_its_keys(interleaved):
    _, result = interleaved
    assert result.to_dict() == replace(result, timeline=(), details=None).to_dict()
    assert not {"timeline", "details"} & set(result.to_dict())
