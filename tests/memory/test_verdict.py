"""Fits, does not fit, or too close to tell; and what helps."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

from reports.headline import remedy
from simulator.memory.report import RELATIVE_ERROR, MemoryReport, StageMemory
from simulator.memory.summary import memory_warnings, to_mapping
from simulator.simulate import simulate, simulate_memory
from simulator.simulation import Simulation
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec
from simulator.sweep.remedies import remedies, with_remedies

MakeRun = Callable[..., RunSpec]
PARTS = ("weights", "gradients", "optimizer", "activations", "buffers")


def report(peak: float, fragmentation: float = 0.0) -> MemoryReport:
    parts = dict.fromkeys(PARTS, peak / 5)
    stage = StageMemory(**parts)
    wasted = (replace(stage, fragmentation=fragmentation),)
    return MemoryReport(allocated=(stage,), wasted=lambda _: wasted, capacity_bytes=100.0)


@pytest.mark.parametrize(
    ("peak", "fragmentation", "fits", "verdict"),
    [
        (90.0, 0.0, True, "fits"),
        (90.0, 6.0, True, "may not fit"),
        (97.0, 0.0, True, "may not fit"),
        (103.0, 0.0, False, "may not fit"),
        (110.0, 0.0, False, "does not fit"),
    ],
)
def test_verdict(peak: float, fragmentation: float, fits: bool, verdict: str) -> None:
    found = report(peak, fragmentation)
    assert RELATIVE_ERROR == 0.06
    assert (found.fits, found.verdict) == (fits, verdict)
    warnings = memory_warnings(found)
    assert [warning.partition(":")[0] for warning in warnings] == ([] if verdict == "fits" else [verdict])


def test_parts_of_a_stage_sum_to_its_peak(make_run: MakeRun) -> None:
    mapping = to_mapping(simulate_memory(make_run(tp=2, pp=2)))
    for stage in mapping["stages"]:  # type: ignore[attr-defined]
        assert sum(stage[part] for part in PARTS) == pytest.approx(stage["peak_bytes"])
        assert stage["allocated_bytes"] <= stage["reserved_bytes"]
        assert stage["peak_bytes"] == pytest.approx(
            stage["allocated_bytes"] + stage["context"] + stage["communication"]
        )


@pytest.mark.parametrize(("stage", "kept", "action"), [(0, 3, "0F3"), (3, 0, "3F0")])
def test_a_stage_peaks_where_its_schedule_holds_most(
    make_run: MakeRun, stage: int, kept: int, action: str
) -> None:
    """1F1B's device i of p keeps p − i microbatches; its peak comes with the last forward of the warm-up or
    the backward after it."""
    found = to_mapping(simulate_memory(make_run(pp=4)))["stages"][stage]  # type: ignore[index]
    assert (found["kept_forwards"], found["peak_action"]) in {(kept, action), (kept + 1, f"{stage}B0")}


def test_results_carry_the_memory_of_the_report(make_run: MakeRun) -> None:
    run = make_run(tp=2, pp=2)
    assert simulate(run).memory == to_mapping(simulate_memory(run))


def small_device(run: RunSpec, gib: float) -> RunSpec:
    device = replace(run.cluster.device, memory_bytes=gib * 2**30)
    return replace(run, cluster=replace(run.cluster, device=device))


def test_remedies_are_settings_that_their_run_file_takes() -> None:
    name = "llama3.1-405b-16384-h100"  # it states dp
    for found in remedies(load_run(name)):
        given = [word for word in shlex.split(remedy(found.to_dict()).rpartition(": ")[0]) if word != "--set"]
        assert Simulation(load_run(name, given)).memory.peak_bytes == found.peak_bytes


def test_remedies_fit_and_the_cheapest_comes_first(make_run: MakeRun) -> None:
    run = make_run(micro_batch_size=4)
    needed = simulate_memory(run).peak_bytes / 2**30
    tight = small_device(run, 0.75 * needed)
    assert simulate_memory(tight).verdict == "does not fit"
    found = remedies(tight)
    assert 1 <= len(found) <= 3
    times = [remedy.step_time_s for remedy in found]
    assert times == sorted(times)
    assert {remedy.verdict for remedy in found} == {"fits"}
    assert all(remedy.peak_bytes < 0.75 * needed * 2**30 for remedy in found)


def test_a_remedy_can_be_set_as_it_reads(make_run: MakeRun) -> None:
    run = make_run(micro_batch_size=4)
    tight = small_device(run, 0.75 * simulate_memory(run).peak_bytes / 2**30)
    listed = with_remedies(simulate(tight), tight).memory["remedies"]
    paths = {path for remedy in listed for path in remedy["settings"]}
    assert paths <= {
        "parallelism.pp",
        "parallelism.tp",
        "parallelism.vp",
        "parallelism.zero",
        "training.activation_offload_layers",
        "training.micro_batch_size",
        "training.recompute",
    }


def test_no_remedy_recomputes_more_than_another_that_suffices(make_run: MakeRun) -> None:
    run = make_run(micro_batch_size=4)
    tight = small_device(run, 0.9 * simulate_memory(run).peak_bytes / 2**30)
    asked = [remedy.settings.get("training.recompute") for remedy in remedies(tight, most=99)]
    deeper = {"granularity": "selective", "modules": ["core_attn", "layernorm", "mlp"]}
    assert {"granularity": "selective", "modules": ["layernorm", "mlp"]} in asked
    assert deeper not in asked
    assert {"granularity": "full"} not in asked


def test_nothing_helps_a_hopeless_run(make_run: MakeRun) -> None:
    assert remedies(small_device(make_run(), 0.1)) == []
