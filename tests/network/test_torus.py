"""Pods of direct links."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.network.collectives import Network
from simulator.network.placement import Placement
from simulator.network.torus import dimensions, spanned


def pod(make_cluster: Any, chips: int) -> Any:
    return make_cluster(
        architecture="tpu", nvlink_kind="ici", nvlink=300e9, topology="torus", domain=chips, gpus_per_node=4
    )


def test_sides_of_known_pods() -> None:
    assert dimensions(4096) == (16, 16, 16)  # TPU v4
    assert dimensions(256) == (16, 16)  # TPU v5e
    assert dimensions(8960) == (28, 20, 16)  # TPU v5p


def test_groups_fill_one_dimension_after_the_other() -> None:
    assert spanned(16, (16, 16, 16)) == (16,)
    assert spanned(64, (16, 16, 16)) == (16, 4)
    assert spanned(4096, (16, 16, 16)) == (16, 16, 16)


def test_an_all_gather_over_the_pod_uses_every_link(make_cluster: Any) -> None:
    cluster = pod(make_cluster, 4096)
    network = Network(cluster, Placement(cluster, dp=4096))
    found = network.collective("all_gather", 10e9, "dp")
    assert found.algorithm == "torus"
    assert found.seconds == pytest.approx(10e9 * 4095 / 4096 / (0.9 * 300e9), rel=0.01)


def test_an_all_reduce_in_one_dimension_has_its_links_only(make_cluster: Any) -> None:
    cluster = pod(make_cluster, 4096)
    network = Network(cluster, Placement(cluster, dp=16))
    third = 0.9 * 300e9 / 3
    seconds = network.collective("all_reduce", 10e9, "dp").seconds
    assert seconds == pytest.approx(2 * 10e9 * 15 / 16 / third, rel=0.01)


def test_an_all_to_all_is_bound_by_the_bisection(make_cluster: Any) -> None:
    # half of the bytes of half of the chips cross the cut: n/2·S/2 over 2·(n/side) links, a sixth each
    cluster = pod(make_cluster, 4096)
    network = Network(cluster, Placement(cluster, dp=4096))
    cut = 2 * (4096 / 16) * 0.9 * 300e9 / 6
    assert network.collective("all_to_all", 1e9, "dp").seconds == pytest.approx(2048 * 0.5e9 / cut, rel=0.01)
