"""Rank groups: who talks to whom, and across what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.network.placement import Placement
from simulator.network.tiers import lap_latency
from simulator.spec.cluster import Tier
from simulator.spec.load import load_cluster

SIZES = st.sampled_from([1, 2, 3, 4])


def test_megatron_order_puts_tensor_groups_on_neighbouring_ranks(make_cluster: Any) -> None:
    p = Placement(make_cluster(), tp=8, pp=4, dp=4)
    assert p.members("tp", 13) == tuple(range(8, 16))
    assert p.members("dp", 0) == (0, 8, 16, 24)
    assert p.members("pp", 5) == (5, 37, 69, 101)


def test_expert_groups_follow_megatron_core(make_cluster: Any) -> None:
    # parallel_state.py, order tp-cp-ep-dp-pp, world 16, tp 2, ep 4, etp 1: experts are consecutive
    p = Placement(make_cluster(), tp=2, dp=8, ep=4, etp=1)
    assert p.members("ep", 6) == (4, 5, 6, 7)
    assert p.members("edp", 1) == (1, 5, 9, 13)
    assert p.sizes["edp"] == 4


def test_data_parallel_with_context_groups_join_both_axes(make_cluster: Any) -> None:
    p = Placement(make_cluster(), tp=2, cp=2, dp=4)
    assert p.members("dp_cp", 1) == (1, 3, 5, 7, 9, 11, 13, 15)
    assert p.group("dp_cp").ranks == 8


def test_two_copies_join_the_data_parallel_groups_of_mirrored_stages(make_cluster: Any) -> None:
    p = Placement(make_cluster(), dp=2, pp=4, ep=2, etp=1, copies=2)
    assert p.members("dp_cp", 0) == p.members("dp_cp", 7) == (0, 1, 6, 7)
    assert p.members("edp", 3) == (3, 5)
    assert p.members("ep", 3) == (2, 3)
    assert p.group("dp_cp").ranks == 4


@given(tp=SIZES, cp=SIZES, dp=SIZES, pp=SIZES)
def test_coordinates_and_ranks_are_inverse(make_cluster: Any, tp: int, cp: int, dp: int, pp: int) -> None:
    p = Placement(make_cluster(), tp=tp, cp=cp, dp=dp, pp=pp)
    for rank in range(p.world_size):
        c = p.coordinates(rank)
        assert p.rank(tp=c["tp"], cp=c["cp"], dp=c["dp"], pp=c["pp"]) == rank


@given(
    tp=SIZES,
    cp=SIZES,
    dp=SIZES,
    pp=SIZES,
    axis=st.sampled_from(["tp", "cp", "dp", "pp", "dp_cp", "ep", "edp"]),
)
def test_groups_of_an_axis_partition_the_world(
    make_cluster: Any, *, tp: int, cp: int, dp: int, pp: int, axis: Any
) -> None:
    p = Placement(make_cluster(), tp=tp, cp=cp, dp=dp, pp=pp)
    groups = {p.members(axis, rank) for rank in range(p.world_size)}
    assert sorted(rank for group in groups for rank in group) == list(range(p.world_size))


def test_tensor_groups_of_a_node_stay_in_its_domain(make_cluster: Any) -> None:
    group = Placement(make_cluster(), tp=8, dp=16).group("tp")
    assert (group.ranks, group.domains, group.ranks_per_domain, group.tier) == (8, 1, 8, -1)
    assert group.inside_domain


def test_data_parallel_ranks_of_a_tensor_parallel_node_have_one_rail_each(make_cluster: Any) -> None:
    group = Placement(make_cluster(nic=50e9, nics_per_node=8), tp=8, dp=16).group("dp")
    assert (group.ranks_per_domain, group.nodes, group.nic_bandwidth) == (1, 16, 50e9)


def test_gpus_that_share_a_nic_get_a_part_of_it(make_cluster: Any) -> None:
    group = Placement(make_cluster(nic=25e9, nics_per_node=4), tp=8, dp=16).group("dp")
    assert group.nic_bandwidth == 12.5e9


def test_a_group_that_does_not_fit_its_domain_is_seen_at_its_worst(make_cluster: Any) -> None:
    group = Placement(make_cluster(), tp=6, dp=4).group("tp")  # ranks 6 … 11 straddle two nodes, 0 … 5 do not
    assert group.domains == 2


def test_a_rack_is_one_domain_of_many_nodes(make_cluster: Any) -> None:
    p = Placement(make_cluster(domain=72, gpus_per_node=4, nics_per_node=4), tp=1, ep=72, dp=144)
    assert (p.group("ep").domains, p.group("ep").nodes) == (1, 18)
    assert Placement(make_cluster(domain=72, gpus_per_node=4), tp=72).group("tp").nodes == 18


def test_a_job_larger_than_a_rack_takes_equal_shares_of_racks(make_cluster: Any) -> None:
    cluster = make_cluster(domain=72, gpus_per_node=4, nics_per_node=4)
    assert Placement(cluster, tp=1, ep=64, dp=192).group("ep").domains == 1  # three times 64
    assert Placement(cluster, tp=1, ep=32, dp=256).group("ep").domains == 1  # four times 64
    assert Placement(cluster, tp=1, ep=2, dp=146).group("dp").ranks_per_domain == 72  # none equal


def test_tiers_are_those_that_join_the_nodes_of_a_group(make_cluster: Any) -> None:
    tiers = (Tier(name="leaf", nodes=4), Tier(name="spine", nodes=16), Tier(name="core"))
    cluster = make_cluster(tiers=tiers)
    assert Placement(cluster, tp=8, dp=4).group("dp").tier == 0
    assert Placement(cluster, tp=8, dp=16).group("dp").tier == 1
    group = Placement(cluster, tp=8, dp=64).group("dp")
    assert (group.tier, group.nodes_per_switch) == (2, (4, 16, 64))


def test_stage_hops_between_nodes_and_inside(make_cluster: Any) -> None:
    across = Placement(make_cluster(), tp=8, pp=4).stage_hop(0)
    assert (across.inside_domain, across.crossing_fraction) == (False, 1.0)
    inside = Placement(make_cluster(), tp=2, pp=4)
    assert inside.stage_hop(0).inside_domain and inside.stage_hop(3).inside_domain


def test_a_hop_that_sometimes_crosses_says_how_often(make_cluster: Any) -> None:
    p = Placement(make_cluster(), tp=4, pp=4)
    assert p.stage_hop(0).inside_domain
    assert not p.stage_hop(1).inside_domain
    assert not p.stage_hop(3).inside_domain  # the way back from the last stage to the first


def test_worlds_of_any_size_cost_nothing_to_lay_out(make_cluster: Any) -> None:
    p = Placement(make_cluster(), tp=8, cp=16, pp=16, dp=512)
    assert p.world_size == 1_048_576
    assert p.group("dp").ranks == 512
    assert p.coordinates(p.world_size - 1) == {
        "tp": 7, "cp": 15, "dp": 511, "pp": 15, "etp": 7, "ep": 0, "edp": 8191,
    }  # fmt: skip


@pytest.mark.parametrize("order", ["tp-cp-dp", "tp-tp-dp-pp", "tp-cp-ep-dp-xx"])
def test_rank_orders_that_miss_an_axis_are_refused(make_cluster: Any, order: str) -> None:
    with pytest.raises(ValueError, match="rank_order"):
        Placement(make_cluster(), rank_order=order)


def test_experts_that_do_not_fold_are_refused(make_cluster: Any) -> None:
    with pytest.raises(ValueError, match="does not divide"):
        Placement(make_cluster(), tp=2, dp=3, ep=4, etp=1)


def test_pipeline_inside_data_parallel_needs_equal_grids(make_cluster: Any) -> None:
    with pytest.raises(ValueError, match="pipeline stages"):
        Placement(make_cluster(), tp=2, cp=2, dp=4, pp=2, ep=2, etp=1, rank_order="tp-cp-ep-pp-dp")


def test_experts_of_one_rank_are_laid_out_as_the_dense_layers(make_cluster: Any) -> None:
    # the order of Llama 3: TP, CP, PP, DP
    placement = Placement(make_cluster(), tp=8, cp=16, dp=8, pp=16, rank_order="tp-cp-ep-pp-dp")
    edp, dp_cp = placement.group("edp"), placement.group("dp_cp")
    assert (edp.ranks, edp.nodes, edp.domains) == (dp_cp.ranks, dp_cp.nodes, dp_cp.domains) == (128, 128, 128)


def test_a_ring_leaves_every_switch_once_a_lap(make_cluster: Any) -> None:
    tiers = (
        Tier(name="leaf", nodes=4, latency_s=1e-6),
        Tier(name="site", nodes=16, latency_s=2e-6),
        Tier(name="wide area", latency_s=5e-3),
    )
    cluster = make_cluster(tiers=tiers)
    both_sites = Placement(cluster, dp=8 * 32).group("dp")
    assert lap_latency(cluster.scale_out, both_sites) == pytest.approx(8 * 2e-6 + 2 * 5e-3)
    one_site = Placement(cluster, dp=8 * 16).group("dp")
    assert lap_latency(cluster.scale_out, one_site) == pytest.approx(4 * 2e-6)


@pytest.mark.parametrize(
    ("order", "crosses"),
    [("tp-cp-ep-pp-dp", {"dp"}), ("tp-cp-ep-dp-pp", {"pp"})],
)
def test_the_rank_order_decides_which_axis_crosses_between_sites(order: str, crosses: set[str]) -> None:
    cluster = load_cluster("two-site-h100")
    placement = Placement(cluster, tp=8, pp=4, dp=128, rank_order=order)
    wide_area = len(cluster.scale_out.tiers) - 1
    tiers = {axis: placement.group(axis).tier for axis in ("tp", "dp", "pp")}
    assert {axis for axis, tier in tiers.items() if tier == wide_area} == crosses
