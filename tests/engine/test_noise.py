"""Jitter and stragglers: classes against every rank, expected maxima against draws."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.classes import replica_classes
from simulator.engine.conditions import Condition
from simulator.engine.extremes import Group, expected_largest, largest
from simulator.engine.world import Layout
from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.noise import Jitter, Noise, Slow
from simulator.spec.run import RunSpec, Simulation


def run_of(tp: int, pp: int, dp: int, *, microbatches: int = 2, layers: int = 4, zero: int = 1) -> RunSpec:
    run = load_run("llama3-8b-8-h100")
    return replace(
        run,
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=layers),
        parallelism=replace(run.parallelism, tp=tp, pp=pp, dp=dp, zero=zero),
        training=replace(run.training, global_batch_size=microbatches * dp, micro_batch_size=1),
    )


def with_jitter(run: RunSpec, **jitter: float) -> RunSpec:
    return replace(run, noise=Noise(jitter=Jitter(**jitter)))


def seconds(run: RunSpec) -> float:
    return simulate(run).step_time_s


def of_every_rank(run: RunSpec, seed: int = 0) -> RunSpec:
    return replace(run, simulation=Simulation(ranks="all", detail="operator", seed=seed))


@pytest.mark.parametrize(
    ("n", "published"), [(1, 0.0), (2, 0.56419), (5, 1.16296), (8, 1.42360), (10, 1.53875), (1000, 3.24144)]
)
def test_the_largest_of_n_normal_draws_is_that_of_the_tables(n: int, published: float) -> None:
    # Harter, "Expected values of normal order statistics", Biometrika 48, 1961
    assert largest(n).mean == pytest.approx(published, abs=1e-4)
    assert expected_largest([Group(10.0, 2.0, n)]) == pytest.approx(10 + 2 * published, abs=1e-4)


def test_a_group_far_ahead_decides_alone() -> None:
    assert expected_largest([Group(1.0, 0.1, 50), Group(9.0, 0.0, 4)]) == pytest.approx(9.0, abs=1e-3)


@settings(max_examples=6, deadline=None)
@given(
    shape=st.sampled_from([(2, 2, 2), (1, 2, 4), (4, 1, 2), (2, 4, 2)]),
    zero=st.sampled_from([0, 1]),
    place=st.floats(0, 0.999),
    part=st.sampled_from(["compute", "nvlink"]),
)
def test_classes_give_the_step_of_every_rank_with_a_straggler(
    shape: tuple[int, int, int], zero: int, place: float, part: str
) -> None:
    run = run_of(*shape, zero=zero)
    if part == "nvlink" and shape[0] == 1:
        part = "compute"
    slow = Slow(rank=int(place * run.gpus), **{part: 0.7})
    apart = replace(run.runtime, overlap_grad_reduce=False, overlap_param_gather=False)
    run = replace(run, noise=Noise(slow=(slow,)), runtime=apart)
    folded, whole = simulate(run), simulate(of_every_rank(run))
    assert folded.step_time_s == pytest.approx(whole.step_time_s, rel=1e-9)
    for result in (folded, whole):
        assert sum(result.breakdown_s.values()) == pytest.approx(result.step_time_s, rel=1e-9)
    assert folded.breakdown_s["jitter"] > 0 or part == "nvlink"


@pytest.mark.parametrize("zero", [1, 3])
def test_a_slow_nic_slows_the_rings_through_it(zero: int) -> None:
    run = run_of(8, 1, 2, zero=zero)
    slowed = replace(run, noise=Noise(slow=(Slow(node=1, nic=0.25),)))
    assert seconds(run) < seconds(slowed) == pytest.approx(seconds(of_every_rank(slowed)), rel=5e-3)


def test_two_transfers_at_once_on_a_slow_nic_share_its_slow_rate() -> None:
    run = run_of(8, 2, 2, microbatches=8, layers=8)
    run = replace(
        run,
        noise=Noise(slow=(Slow(node=3, nic=0.1),)),  # the last stage of one replica
        runtime=replace(run.runtime, overlap_p2p=True, ddp_bucket_elements=1e8),
    )
    lengths = [e.end_s - e.start_s for e in simulate(run, timeline=True).timeline if e.name == "send"]
    size = run.training.seq_length * run.model.hidden_size * 2 / 8
    slow = 0.1 * run.cluster.scale_out.link.bandwidth
    assert max(lengths) == pytest.approx(2 * size / slow)  # the last gradient, beside the reduction of others
    assert seconds(run) == pytest.approx(seconds(of_every_rank(run)), rel=1e-9)


def test_a_straggler_sets_its_own_replica_apart() -> None:
    layout = Layout(tp=4, dp=16, devices=3)
    common, slow = replica_classes(layout, {(1, 22): Condition(compute=0.9)})
    assert (common.replicas, slow.replicas) == (15, 1)
    assert [condition.compute for condition in slow.conditions] == [1.0, 0.9, 1.0]
    assert common.meets["dp_cp"] == slow.meets["dp_cp"] == (0, 1)


def test_with_sharding_groups_its_neighbours_and_counterparts_are_apart_too() -> None:
    layout = Layout(tp=1, dp=16, devices=1, shard=4)
    classes = replica_classes(layout, {(0, 5): Condition(compute=0.9)})
    # the straggler, the 3 it shards with, its counterparts in 3 groups, the 9 others
    assert sorted(each.replicas for each in classes) == [1, 3, 3, 9]


def test_experts_move_in_step_over_the_replicas_they_span() -> None:
    layout = Layout(tp=1, dp=16, devices=1, ep=8)
    common, slow = replica_classes(layout, {(0, 3): Condition(compute=0.9)})
    assert (common.replicas, slow.replicas) == (1, 1)


@pytest.mark.parametrize(
    ("shape", "jitter"),
    [
        ((4, 1, 4), {"compute": 0.1}),
        ((2, 4, 2), {"compute": 0.1}),
        ((4, 1, 4), {"gemm": 0.15, "memory": 0.05}),
        ((1, 1, 8), {"rank": 0.03}),
        ((4, 2, 8), {"compute": 0.05, "communication": 0.1, "rank": 0.02}),
    ],
)
def test_expected_maxima_agree_with_draws_for_every_rank(
    shape: tuple[int, int, int], jitter: dict[str, float]
) -> None:
    run = run_of(*shape)
    noisy = with_jitter(run, **jitter)
    usual = seconds(run)
    drawn = mean(seconds(of_every_rank(noisy, seed)) for seed in range(4)) / usual - 1
    expected = seconds(noisy) / usual - 1
    assert drawn > 0.01
    assert expected == pytest.approx(drawn, rel=0.35, abs=2e-3)


def test_each_class_of_kernels_varies_by_its_own_figure_or_by_that_of_all() -> None:
    run = run_of(4, 1, 2)
    every = seconds(with_jitter(run, compute=0.1))
    assert seconds(with_jitter(run, gemm=0.1, attention=0.1, memory=0.1)) == every
    assert seconds(with_jitter(run, compute=0.3, gemm=0.1, attention=0.1, memory=0.1)) == every
    usual = seconds(run)
    for name in ("gemm", "attention", "memory"):
        assert usual < seconds(with_jitter(run, **{name: 0.1})) < every
        assert usual < seconds(with_jitter(run, compute=0.1, **{name: 0.0})) < every


def test_ranks_that_differ_slow_a_step_down_with_the_size_of_the_job() -> None:
    growth = [
        seconds(with_jitter(run, rank=0.01)) / seconds(run)
        for run in (run_of(1, 1, dp, microbatches=8) for dp in (8, 128, 1024))
    ]
    assert growth[0] < growth[1] < growth[2]
    assert growth[2] - growth[0] == pytest.approx(0.01 * (largest(1024).mean - largest(8).mean), rel=0.15)


def test_draws_depend_on_the_seed_only() -> None:
    run = of_every_rank(with_jitter(run_of(2, 1, 2), compute=0.05, communication=0.05), seed=3)
    assert simulate(run).to_dict() == simulate(run).to_dict()
    assert seconds(run) != seconds(of_every_rank(run, seed=4))


def test_without_spread_nothing_changes() -> None:
    run = run_of(2, 2, 2)
    assert simulate(with_jitter(run)).to_dict() == simulate(run).to_dict()


def test_a_cluster_may_bring_its_own_jitter() -> None:
    run = run_of(2, 1, 4)
    measured = replace(run.cluster, jitter=Jitter(rank=0.02, source="measured"))
    assert seconds(replace(run, cluster=measured)) == seconds(with_jitter(run, rank=0.02))
    assert seconds(replace(with_jitter(run), cluster=measured)) == seconds(run)


def test_two_copies_of_a_stage_reduce_together_beside_a_straggler() -> None:
    run = run_of(1, 4, 2, microbatches=8, zero=0)
    run = replace(
        run,
        parallelism=replace(run.parallelism, schedule="dualpipe"),
        noise=Noise(slow=(Slow(rank=1, compute=0.7),)),
        runtime=replace(run.runtime, overlap_grad_reduce=False, overlap_param_gather=False),
    )
    assert seconds(run) == pytest.approx(seconds(of_every_rank(run)), rel=1e-9)
