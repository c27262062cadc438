"""What any network must obey, whatever its coefficients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.network.collectives import COLLECTIVES, Network
from simulator.network.placement import Placement
from simulator.spec.cluster import Tier

KINDS = st.sampled_from(COLLECTIVES)
SIZES = st.floats(1.0, 1e11)
BUS_FACTOR = {"all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}
ARCHITECTURES = st.sampled_from(
    [("ampere", 300e9), ("hopper", 450e9), ("blackwell", 900e9), ("hopper", 200e9)]
)


def over(cluster: Any, ranks: int) -> Network:
    return Network(cluster, Placement(cluster, dp=ranks))


def test_a_group_of_one_takes_no_time(make_cluster: Any) -> None:
    network = over(make_cluster(), 1)
    assert network.collective("all_reduce", 1e9, "dp").seconds == 0.0
    assert network.send_recv(1e6).seconds == 0.0


@given(kind=KINDS, size=SIZES, growth=st.floats(1.0, 100.0), ranks=st.sampled_from([2, 4, 8, 16, 64]))
def test_time_grows_with_bytes(make_cluster: Any, kind: Any, size: float, growth: float, ranks: int) -> None:
    network = over(make_cluster(), ranks)
    small, large = (network.collective(kind, s, "dp").seconds for s in (size, size * growth))
    assert small <= large * (1 + 1e-12)


@given(kind=st.sampled_from(sorted(BUS_FACTOR)), size=SIZES, machine=ARCHITECTURES, n=st.integers(2, 8))
def test_bus_bandwidth_stays_below_the_link(
    make_cluster: Any, kind: Any, size: float, machine: tuple[Any, float], n: int
) -> None:
    architecture, rate = machine
    seconds = (
        over(make_cluster(architecture=architecture, nvlink=rate), n).collective(kind, size, "dp").seconds
    )
    assert size * (n - 1) / n / seconds <= rate


@given(kind=KINDS, size=SIZES, ranks=st.sampled_from([16, 128]))
def test_bus_bandwidth_between_nodes_stays_below_the_nics(
    make_cluster: Any, kind: Any, size: float, ranks: int
) -> None:
    seconds = over(make_cluster(), ranks).collective(kind, size, "dp").seconds
    assert size * (ranks - 8) / ranks / seconds <= 8 * 50e9 * (1 if kind != "all_to_all" else 1 / 8) * 1.0001


@given(
    kind=KINDS,
    size=SIZES,
    faster=st.floats(1.0, 8.0),
    ranks=st.sampled_from([2, 8, 16, 64]),
    architecture=st.sampled_from(["ampere", "hopper", "blackwell"]),
)
def test_a_faster_link_is_never_slower(
    make_cluster: Any, *, kind: Any, size: float, faster: float, ranks: int, architecture: Any
) -> None:
    base = over(make_cluster(architecture=architecture), ranks).collective(kind, size, "dp").seconds
    for change in ({"nvlink": 450e9 * faster}, {"nic": 50e9 * faster}):
        better = over(make_cluster(architecture=architecture, **change), ranks)
        assert better.collective(kind, size, "dp").seconds <= base * (1 + 1e-12)


@given(kind=KINDS, size=SIZES, sms=st.integers(1, 32))
def test_fewer_sms_are_never_faster(make_cluster: Any, kind: Any, size: float, sms: int) -> None:
    network = over(make_cluster(), 8)
    assert (
        network.collective(kind, size, "dp", sms=sms).seconds >= network.collective(kind, size, "dp").seconds
    )


def test_oversubscription_slows_what_crosses_it(make_cluster: Any) -> None:
    def seconds(kind: Any, oversubscription: float) -> float:
        tiers = (Tier(name="leaf", nodes=4), Tier(name="spine", oversubscription=oversubscription))
        return over(make_cluster(tiers=tiers), 128).collective(kind, 1e9, "dp").seconds

    assert seconds("all_to_all", 4.0) > 2.5 * seconds("all_to_all", 1.0)
    # a ring lets one NIC's worth in four out of a leaf of four nodes: four-to-one uplinks just carry it
    assert seconds("all_gather", 4.0) == pytest.approx(seconds("all_gather", 1.0))
    assert seconds("all_gather", 16.0) > seconds("all_gather", 1.0)


def test_switch_reduction_is_used_only_where_the_switch_has_it(make_cluster: Any) -> None:
    with_nvls = over(make_cluster(multicast=True), 8).collective("all_reduce", 1e9, "dp")
    without = over(make_cluster(multicast=False), 8).collective("all_reduce", 1e9, "dp")
    assert (with_nvls.algorithm, without.algorithm) == ("nvls", "ring")
    assert with_nvls.seconds < without.seconds


def test_sharp_is_used_only_where_the_network_has_it(make_cluster: Any) -> None:
    plain = over(make_cluster(), 1024).collective("all_reduce", 1e9, "dp")
    sharp = over(make_cluster(sharp=True), 1024).collective("all_reduce", 1e9, "dp")
    assert plain.algorithm != "collnet"
    assert sharp.algorithm == "collnet"
    assert sharp.seconds < plain.seconds


def test_messages_between_stages_follow_the_hop(make_cluster: Any) -> None:
    cluster = make_cluster()
    inside = Network(cluster, Placement(cluster, tp=2, pp=4)).send_recv(64e6).seconds
    across = Network(cluster, Placement(cluster, tp=8, pp=4)).send_recv(64e6).seconds
    assert across > 64e6 / 50e9
    assert inside < across / 3


def test_node_limited_dispatch_saves_network_bytes(make_cluster: Any) -> None:
    cluster = make_cluster()
    network = Network(cluster, Placement(cluster, dp=64, ep=64))
    size = 4096 * 8 * 7168 * 2.0  # 4,096 tokens, eight copies of 7,168 bf16 values
    assert (
        network.node_limited_all_to_all(size, "ep", copies=8, limit=4).seconds
        < network.collective("all_to_all", size, "ep").seconds / 1.5
    )


def test_bulk_copies_fill_a_link_that_a_few_processors_cannot(make_cluster: Any) -> None:
    network = over(make_cluster(), 8)
    size = 4096 * 8 * 7168 * 2.0
    few, bulk = (network.node_limited_all_to_all(size, "dp", copies=8, sms=sms).seconds for sms in (4, 0))
    assert bulk < few / 2
    assert bulk <= network.collective("all_to_all", size, "dp").seconds


def hot(ranks: int, size: float, factor: float) -> list[list[float]]:
    """Every rank sends ``size``, the first one's share of it ``factor`` times the mean."""
    own = factor * size / ranks
    return [[own, *[(size - own) / (ranks - 1)] * (ranks - 1)] for _ in range(ranks)]


@pytest.mark.parametrize("ranks", [8, 32])
@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_an_uneven_all_to_all_takes_as_long_as_its_busiest_rank(
    make_cluster: Any, ranks: int, factor: float
) -> None:
    network = over(make_cluster(), ranks)
    uneven = network.all_to_all_v(hot(ranks, 1e8, factor), "dp").seconds
    assert uneven == pytest.approx(network.collective("all_to_all", factor * 1e8, "dp").seconds)
    transposed = [list(row) for row in zip(*hot(ranks, 1e8, factor), strict=True)]
    assert network.all_to_all_v(transposed, "dp").seconds == pytest.approx(uneven)


def test_traffic_that_stays_in_domains_does_not_wait_for_nics(make_cluster: Any) -> None:
    network, slow = over(make_cluster(), 16), over(make_cluster(nic=5e9), 16)
    inside = [[1e8 if i // 8 == j // 8 else 0.0 for j in range(16)] for i in range(16)]
    assert network.all_to_all_v(inside, "dp").seconds == slow.all_to_all_v(inside, "dp").seconds < 8e8 / 200e9
    with pytest.raises(ValueError, match="16 × 16"):
        network.all_to_all_v(hot(8, 1.0, 1.0), "dp")


def test_unknown_collectives_are_named(make_cluster: Any) -> None:
    with pytest.raises(ValueError, match="all_reduce"):
        over(make_cluster(), 8).collective("allreduce", 1.0, "dp")  # type: ignore[arg-type]


def test_bridged_pairs_of_a_node_talk_over_their_host_links(make_cluster: Any) -> None:
    cluster = make_cluster(domain=2, topology="bridge", nvlink=300e9, multicast=False)
    pairs = Network(cluster, Placement(cluster, dp=4)).collective("all_reduce", 1e9, "dp")
    node = Network(cluster, Placement(cluster, tp=4, pp=2))
    assert 1e9 * 1.5 / pairs.seconds < 64e9  # PCIe 5, not the NVLink of a pair
    assert 64e6 / node.send_recv(64e6).seconds < 64e9
    assert (
        pairs.seconds
        > 2 * Network(cluster, Placement(cluster, dp=2)).collective("all_reduce", 1e9, "dp").seconds
    )


def test_a_wan_tier_adds_its_latency_and_narrows_what_crosses_it(make_cluster: Any) -> None:
    def seconds(size: float, **wan: float) -> float:
        tiers = (Tier(name="site", nodes=8), Tier(name="wan", **wan))
        return over(make_cluster(tiers=tiers), 128).collective("all_reduce", size, "dp").seconds

    assert seconds(8.0, latency_s=10e-3) > seconds(8.0) + 10e-3
    assert seconds(8e9, oversubscription=80.0) > 5 * seconds(8e9)


def test_collectives_in_steps_are_offered_where_software_splits_them(make_cluster: Any) -> None:
    cluster = make_cluster()
    split = replace(cluster, scale_out=replace(cluster.scale_out, hierarchical=True))
    plain, stepped = (Network(c, Placement(c, dp=1024)) for c in (cluster, split))
    for kind in ("all_gather", "reduce_scatter"):  # a ring's latency grows with ranks, here with domains
        best = stepped.collective(kind, 2**26, "dp")
        assert best.algorithm == "hierarchical"
        assert best.seconds < plain.collective(kind, 2**26, "dp").seconds
    for kind in COLLECTIVES:
        assert all(c.algorithm != "hierarchical" for c in plain.candidates(kind, 2**26, "dp"))
    alone = Network(split, Placement(split, dp=8)).candidates("all_gather", 2**26, "dp")
    assert all(c.algorithm != "hierarchical" for c in alone)
