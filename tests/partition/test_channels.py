"""Channels split over ranks: every FLOP stays, and only what other ranks hold crosses between them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.operators import Collective
from simulator.partition.plan import plan_run
from simulator.partition.segment import Segment
from simulator.simulate import simulate
from simulator.spec.errors import SpecError
from simulator.spec.load import load_run

ALEXNET = "alexnet-2-gtx-580"


def collectives(segment: Segment) -> Counter[str]:
    return Counter(step.op.kind for step in segment.steps if isinstance(step.op, Collective))


def test_two_gpus_meet_where_krizhevsky_let_them_meet() -> None:
    """At the third convolution and the dense layers (2012, section 3.5); the others read their own maps."""
    layers = plan_run(load_run(ALEXNET)).chunks[0].layers
    met = {layer.kind.split()[0]: collectives(layer.forward)["all_gather"] for layer in layers}
    assert met == {
        "conv1": 0,
        "conv2": 0,
        "conv3": 1,
        "conv4": 0,
        "conv5": 0,
        "fc6": 1,
        "fc7": 1,
        "fc8": 1,
        "input": 0,
        "output": 0,
    }


def test_the_exchange_carries_the_whole_input_and_its_gradient() -> None:
    layers = {layer.kind.split()[0]: layer for layer in plan_run(load_run(ALEXNET)).chunks[0].layers}
    maps = 128 * 256 * 13 * 13 * 4.0
    for segment, kind in (
        (layers["conv3"].forward, "all_gather"),
        (layers["conv3"].backward, "reduce_scatter"),
    ):
        assert [s.op.size_bytes for s in segment.steps if isinstance(s.op, Collective)] == [maps]
        assert collectives(segment)[kind] == 1


@settings(max_examples=12, deadline=None)
@given(tp=st.sampled_from([1, 2]), pp=st.sampled_from([1, 2]), full=st.booleans())
def test_flops_are_conserved_under_every_split(tp: int, pp: int, full: bool) -> None:
    settings = [f"parallelism.tp={tp}", f"parallelism.pp={pp}", f"gpus={tp * pp}", "cluster=v100"]
    granularity = "full" if full else "none"
    run = load_run(ALEXNET, [*settings, f"training.recompute.granularity={granularity}"])
    once = plan_run(load_run(ALEXNET, ["parallelism.tp=1", "gpus=1", "cluster=v100"])).flops_per_replica
    forward = sum(layer.forward.flops for chunk in plan_run(run).chunks for layer in chunk.layers) * tp
    assert plan_run(run).flops_per_replica == pytest.approx(once + forward * full)


def test_a_pipeline_of_a_graph_sends_what_each_cut_needs() -> None:
    run = load_run(ALEXNET, ["parallelism={pp: 2, stage_split: 'Et*2|t*6L'}", "cluster=v100"])
    plan = plan_run(run)
    assert plan.crossing_bytes(0) == 128 * 256 * 13 * 13 * 4.0


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("training.seq_length=2", "training.seq_length"),
        ("training.precision=fp8", "training.precision"),
        ("parallelism.sequence_parallel=true", "parallelism.sequence_parallel"),
        ("simulation.flops_convention=6n", "simulation.flops_convention"),
        ("training.recompute.granularity=selective", "training.recompute.granularity"),
    ],
)
def test_what_belongs_to_transformers_is_refused(setting: str, key: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(ALEXNET, [setting])
    assert key in {problem.key_path for problem in caught.value.problems}


def test_gpipe_gains_what_was_published_from_more_partitions() -> None:
    """GPipe (arXiv 1811.06965), table 3: 1.7 and 2.7 times the throughput of two P100 on four and eight."""
    times = {
        pp: simulate(load_run("amoebanet-8-p100-gpipe", [f"parallelism.pp={pp}", f"gpus={pp}"])).step_time_s
        for pp in (2, 4, 8)
    }
    assert times[2] / times[4] == pytest.approx(1.7, rel=0.1)
    assert times[2] / times[8] == pytest.approx(2.7, rel=0.1)
