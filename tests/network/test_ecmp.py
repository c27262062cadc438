"""Flows hashed onto uplinks: balls into bins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.network.ecmp import fullest, share_left
from simulator.network.placement import Placement
from simulator.spec.cluster import ClusterSpec, Tier

ClusterFactory = Callable[..., ClusterSpec]

TWO_LEVELS = (Tier(name="leaf", nodes=4), Tier(name="spine"))


def cluster_of(make_cluster: ClusterFactory, *, flows: int = 1, adaptive: bool = False) -> ClusterSpec:
    return make_cluster(tiers=TWO_LEVELS, adaptive_routing=adaptive, flows_per_nic=flows)


@pytest.mark.parametrize(("balls", "bins"), [(16, 16), (64, 16), (256, 16), (64, 32)])
def test_the_fullest_bin_holds_what_throwing_balls_gives(balls: int, bins: int) -> None:
    thrown = np.random.default_rng(1).integers(0, bins, (4000, balls))
    counts = np.apply_along_axis(np.bincount, 1, thrown, minlength=bins)
    assert fullest(balls, bins) == pytest.approx(counts.max(axis=1).mean(), rel=0.05)


@given(balls=st.integers(1, 400), bins=st.integers(1, 64))
def test_the_fullest_bin_is_above_the_mean_and_one_bin_holds_all(balls: int, bins: int) -> None:
    assert fullest(balls, bins) >= balls / bins * (1 - 1e-9)
    assert fullest(balls, 1) == pytest.approx(balls, rel=0.5)


def test_more_flows_spread_better_and_adaptive_routing_loses_nothing(make_cluster: ClusterFactory) -> None:
    def share(ranks: int, **keys: object) -> float:
        cluster = cluster_of(make_cluster, **keys)  # type: ignore[arg-type]
        return share_left(cluster.scale_out, Placement(cluster, dp=ranks).group("dp").tier)

    shares = [share(64, flows=flows) for flows in (1, 4, 16, 1000)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] > 0.9
    assert share(64, adaptive=True) == 1.0
    assert share(32) == 1.0  # below one leaf nothing is hashed
