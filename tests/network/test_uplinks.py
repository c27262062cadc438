"""Who shares the uplinks of oversubscribed switches, and what crosses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.network.collectives import Network
from simulator.network.placement import Placement
from simulator.network.uplinks import Uplinks, uplinks_of
from simulator.spec.cluster import Tier


def leaves(nodes: int, oversubscription: float = 4.0) -> tuple[Tier, ...]:
    return (Tier(name="leaf", nodes=nodes), Tier(name="spine", oversubscription=oversubscription))


def spine(make_cluster: Any, nodes: int, **layout: Any) -> Uplinks:
    cluster = make_cluster(tiers=leaves(nodes))
    (found,) = uplinks_of(cluster, Placement(cluster, **layout))
    return found


def test_full_bisection_and_a_single_switch_need_no_uplinks(make_cluster: Any) -> None:
    full, narrow = make_cluster(tiers=leaves(4, 1.0)), make_cluster(tiers=leaves(4))
    assert uplinks_of(full, Placement(full, tp=8, dp=16)) == ()
    assert uplinks_of(narrow, Placement(narrow, tp=8, dp=4)) == ()


def test_a_rank_has_its_share_of_all_levels_below(make_cluster: Any) -> None:
    tiers = (Tier(name="leaf", nodes=2), Tier(name="x", nodes=8, oversubscription=2.0))
    cluster = make_cluster(tiers=(*tiers, Tier(name="x", oversubscription=3.0)))
    low, high = uplinks_of(cluster, Placement(cluster, tp=8, dp=32))
    assert (low.bandwidth, high.bandwidth) == (50e9 / 2, pytest.approx(50e9 / 6))
    assert (low.name, high.name) == ("uplinks to x 1", "uplinks to x 2")
    assert (low.ranks.tolist(), high.ranks.tolist()) == ([16] * 16, [64] * 4)


def test_stages_in_switches_of_their_own_send_everything_out(make_cluster: Any) -> None:
    up = spine(make_cluster, 2, tp=8, dp=4, pp=3)
    assert up.below.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert up.crossing(0, 1).out.tolist() == [1, 1, 0, 0, 0, 0]
    assert up.crossing(0, 1).into.tolist() == [0, 0, 1, 1, 0, 0]
    assert up.alike.tolist() == [0, 0, 2, 2, 4, 4]


def test_whole_pipelines_below_a_switch_keep_their_messages(make_cluster: Any) -> None:
    up = spine(make_cluster, 8, tp=8, dp=16, pp=4, rank_order="tp-cp-pp-dp")
    assert np.all(up.below == 0.25)
    assert up.most_crossing(0, 1) == up.most_crossing(3, 0) == 0.0
    assert set(up.alike.tolist()) == {0}


def test_messages_that_few_ranks_send_out_are_not_slowed_down(make_cluster: Any) -> None:
    """Four stages below a switch: only the last one's messages leave it, a quarter of what it could send."""
    cluster = make_cluster(tiers=leaves(4))
    network = Network(cluster, Placement(cluster, tp=8, pp=8, dp=2, rank_order="tp-cp-pp-dp"))
    free = make_cluster(tiers=leaves(4, 1.0))
    unhindered = Network(free, Placement(free, tp=8, pp=8, dp=2, rank_order="tp-cp-pp-dp"))
    for stage in range(8):
        assert network.send_recv(1e8, stage=stage) == unhindered.send_recv(1e8, stage=stage)
    apart = Network(cluster, Placement(cluster, tp=8, pp=2, dp=8))
    assert apart.send_recv(1e9).seconds == pytest.approx(4 * unhindered.send_recv(1e9).seconds, rel=0.01)


def test_alone_a_stage_has_the_uplinks_to_itself(make_cluster: Any) -> None:
    """Two replicas of four stages below a leaf: a stage's rings send out an eighth of what all NICs could."""

    def seconds(oversubscription: float) -> float:
        cluster = make_cluster(tiers=leaves(8, oversubscription))
        layout = Placement(cluster, tp=8, pp=4, dp=8, rank_order="tp-cp-pp-dp")
        return Network(cluster, layout).collective("all_gather", 1e10, "dp").seconds

    assert seconds(8.0) == pytest.approx(seconds(1.0))
    assert seconds(32.0) == pytest.approx(4 * seconds(1.0), rel=0.02)


def test_two_devices_with_equal_stages_reduce_at_once(make_cluster: Any) -> None:
    cluster = make_cluster(tiers=leaves(8, 16.0))
    one, two = (
        Network(cluster, Placement(cluster, tp=8, pp=4, dp=8, rank_order="tp-cp-pp-dp", copies=copies))
        for copies in (1, 2)
    )
    assert (one._group("dp_cp").stage_shares[1], two._group("dp_cp").stage_shares[1]) == (0.25, 0.5)


def test_a_message_waits_for_the_switches_on_its_own_way(make_cluster: Any) -> None:
    tiers = (Tier(name="leaf", nodes=2), Tier(name="far", latency_s=1e-3))
    network = Network(make_cluster(tiers=tiers), Placement(make_cluster(tiers=tiers), tp=8, pp=4))
    near, far = (network.send_recv(1e6, stage=stage).seconds for stage in (0, 1))
    assert far == pytest.approx(near + 1e-3)


def test_what_crosses_uplinks_fits_them(make_cluster: Any) -> None:
    cluster = make_cluster(tiers=leaves(4))
    network = Network(cluster, Placement(cluster, tp=8, dp=16))
    (up,) = network.uplinks
    for kind, leaving in (("all_gather", 1 / 4), ("all_to_all", 12 / 15)):
        load = network.collective_load(kind, 1e9, "dp")  # type: ignore[arg-type]
        assert load.leaving == (pytest.approx(leaving * load.nic),)
        seconds = network.collective(kind, 1e9, "dp").seconds  # type: ignore[arg-type]
        assert load.leaving[0] / seconds <= up.bandwidth
