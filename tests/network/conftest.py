"""Small machines to try the network on, built without any profile file of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulator.spec.cluster import ClusterSpec, DeviceSpec, Host, LinkSpec, ScaleOut, ScaleUp, Tier

ClusterFactory = Callable[..., ClusterSpec]


def _cluster(
    *,
    architecture: Any = "hopper",
    nvlink: float = 450e9,
    domain: int = 8,
    gpus_per_node: int = 8,
    multicast: bool = True,
    nic: float = 50e9,
    nics_per_node: int = 8,
    nic_kind: Any = "infiniband",
    nvlink_kind: Any = "nvlink",
    tiers: tuple[Tier, ...] = (),
    adaptive_routing: bool = True,
    flows_per_nic: int = 1,
    sharp: bool = False,
    topology: Any = "switch",
) -> ClusterSpec:
    device = DeviceSpec(
        name="device",
        architecture=architecture,
        peak_flops={"bf16": 1e15},
        memory_bytes=80e9,
        memory_bandwidth=3e12,
        sm_count=132,
    )
    up = LinkSpec(name="up", kind=nvlink_kind, bandwidth=nvlink, latency_s=1e-6)
    out = LinkSpec(name="out", kind=nic_kind, bandwidth=nic, latency_s=3e-6)
    pcie = LinkSpec(name="pcie", kind="pcie", bandwidth=64e9, latency_s=1e-6)
    return ClusterSpec(
        name="cluster",
        device=device,
        gpus_per_node=gpus_per_node,
        scale_up=ScaleUp(link=up, domain_size=domain, multicast=multicast, topology=topology),
        scale_out=ScaleOut(
            link=out,
            nics_per_node=nics_per_node,
            tiers=tiers,
            adaptive_routing=adaptive_routing,
            flows_per_nic=flows_per_nic,
            in_network_reduction=sharp,
        ),
        host=Host(link=pcie),
    )


@pytest.fixture(scope="session")
def make_cluster() -> ClusterFactory:
    """Builds a cluster from the facts a test cares about; by default eight Hopper GPUs, eight NDR rails."""
    return _cluster
