"""The direction and size of effects that were published, on machines of the shipped profiles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.network.collectives import CollectiveName, Network
from simulator.network.placement import Placement
from simulator.network.table import bus_factor
from simulator.spec.cluster import ClusterSpec, Tier
from simulator.spec.load import load_cluster, load_link


def seconds(cluster: ClusterSpec, kind: CollectiveName, size: float, ranks: int, *, tp: int = 1) -> float:
    return Network(cluster, Placement(cluster, tp=tp, dp=ranks)).collective(kind, size, "dp").seconds


def bus(cluster: ClusterSpec, kind: CollectiveName, size: float, ranks: int) -> float:
    return size * bus_factor(kind, ranks) / seconds(cluster, kind, size, ranks) / 1e9


@pytest.fixture(scope="module")
def dgx_h100() -> ClusterSpec:
    return load_cluster("dgx-h100-ndr")


def test_nvls_beats_the_ring_in_a_dgx_h100(dgx_h100: ClusterSpec) -> None:
    # 480 GB/s at 8 GB (NVIDIA dgxc-benchmarking); at 512 MB 445 with NVLS, 351 for int8, which cannot use it
    plain = replace(dgx_h100, scale_up=replace(dgx_h100.scale_up, multicast=False))
    assert bus(dgx_h100, "all_reduce", 2**33, 8) == pytest.approx(480, rel=0.05)
    gain = seconds(plain, "all_reduce", 2**29, 8) / seconds(dgx_h100, "all_reduce", 2**29, 8)
    assert gain == pytest.approx(445 / 351, rel=0.1)


def test_sharp_halves_small_all_reduces_over_128_nodes(dgx_h100: ClusterSpec) -> None:
    # 8 bytes over 128 hosts: 6.01 us without, 2.83 us with SHARP (Graham et al., COMHPC 2016)
    sharp = replace(dgx_h100, scale_out=replace(dgx_h100.scale_out, in_network_reduction=True))
    assert (
        1.5 < seconds(dgx_h100, "all_reduce", 8, 128, tp=8) / seconds(sharp, "all_reduce", 8, 128, tp=8) < 4
    )
    # large: half of the bytes of a ring or tree through each NIC, until NVLink is the limit
    assert 1.3 < seconds(dgx_h100, "all_reduce", 2**32, 1024) / seconds(sharp, "all_reduce", 2**32, 1024) < 2


def test_four_to_one_uplinks_slow_all_to_all_only(dgx_h100: ClusterSpec) -> None:
    def slowdown(kind: CollectiveName) -> float:
        times = []
        for oversubscription in (1.0, 4.0):
            tiers = (Tier(name="leaf", nodes=32), Tier(name="spine", oversubscription=oversubscription))
            cluster = replace(dgx_h100, scale_out=replace(dgx_h100.scale_out, tiers=tiers))
            times.append(seconds(cluster, kind, 2**33, 1024))
        return times[1] / times[0]

    assert slowdown("all_gather") == pytest.approx(1.0)
    assert 2.5 < slowdown("all_to_all") <= 4.0


def test_nic_generations_double_the_all_gather_until_nvlink_is_the_limit() -> None:
    # sixteen A100 over HDR: 172 to 177 GB/s (ALCF Sophia); sixteen B200 over NDR: 308 GB/s
    b200 = load_cluster("dgx-b200-ndr")
    found = []
    for name in ("infiniband-hdr", "infiniband-ndr", "infiniband-xdr"):
        cluster = replace(b200, scale_out=replace(b200.scale_out, link=load_link(name)))
        found.append(bus(cluster, "all_gather", 2**30, 16))
    assert found[0] == pytest.approx(175, rel=0.1)
    assert found[1] == pytest.approx(308, rel=0.1)
    assert 1.3 < found[2] / found[1] < 2.0


def test_expert_parallelism_of_64_gains_an_order_of_magnitude_in_one_rack() -> None:
    # "Insights into DeepSeek-V3" (arXiv 2505.09343, section 2.3): 120.96 us over 400 Gb/s, 6.72 over 900 GB/s
    rack, nodes = load_cluster("gb200-nvl72"), load_cluster("dgx-b200-ndr")
    size = 32 * 9 * 7168.0
    gain = seconds(nodes, "all_to_all", size, 64) / seconds(rack, "all_to_all", size, 64)
    assert gain == pytest.approx(18, rel=0.3)
