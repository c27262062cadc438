"""``stage_split: balanced``: never slower than the even split, within its memory, and says what it gains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.partition.stages import layout_text, split_stages
from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec


def split(run: RunSpec, how: str) -> RunSpec:
    return replace(run, parallelism=replace(run.parallelism, stage_split=how))


def llama_405b() -> RunSpec:
    return load_run("llama3.1-405b-16384-h100")


def deepseek_v3() -> RunSpec:
    """With a quarter of its microbatches."""
    run = load_run("deepseek-v3-2048-h800")
    return replace(run, training=replace(run.training, global_batch_size=4096))


@pytest.mark.slow
@pytest.mark.parametrize(("run", "least_gain"), [(llama_405b(), 0.005), (deepseek_v3(), 0.05)])
def test_balanced_beats_the_even_split_and_says_by_how_much(run: RunSpec, least_gain: float) -> None:
    even, found = simulate(split(run, "even")), simulate(split(run, "balanced"))
    gain = 1 - found.step_time_s / even.step_time_s
    assert gain > least_gain
    assert f"{100 * gain:.1f} % less than the even split's" in found.choices[0]
    capacity = run.cluster.device.memory_bytes
    assert found.memory["peak_bytes"] <= max(capacity, even.memory["peak_bytes"])


def test_balanced_is_never_slower_than_a_split_with_a_name() -> None:
    run = load_run("mixtral-8x7b-64-h100")
    run = replace(run, model=replace(run.model, num_hidden_layers=30))
    p = replace(run.parallelism, pp=8, vp=1, ep=1, schedule="1f1b", dp=0)
    run = replace(run, parallelism=p, runtime=replace(run.runtime, overlap_p2p=None, ep_overlap=False))
    named = ("even", "embedding-and-loss-as-layers", "first=3,last=3")
    fastest = min(simulate(split(run, name)).step_time_s for name in named)
    found = simulate(split(run, "balanced"))
    assert found.step_time_s <= fastest * (1 + 1e-12)
    layout = found.choices[0].split(": ")[1].split(", ")[0]
    assert simulate(split(run, layout)).step_time_s == pytest.approx(found.step_time_s, rel=1e-12)


def test_without_a_pipeline_there_is_nothing_to_split() -> None:
    assert simulate(split(load_run("llama3-8b-8-h100"), "balanced")).choices == ()


@pytest.mark.parametrize("layout", ["Et*3|t*4|t*2mL", "E||t*9|mL", "Et|t*8|mL"])
def test_layouts_are_written_as_they_are_read(layout: str) -> None:
    stages = layout.count("|") + 1
    assert layout_text(split_stages(9, stages, 1, layout, mtp_layers=1)) == layout
