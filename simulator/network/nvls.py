"""NVLink SHARP: the NVSwitch adds (reduce) and replicates (multicast) what passes through it.

In an all-reduce rank i reads the sum of chunk i through the switch, for which every GPU sends its whole
buffer once, and multicasts the result: size·(1 + 1/n) on each link and direction, against
2·size·(n−1)/n of a ring. The latency does not grow with the ranks. Counts follow NVIDIA's Hopper
NVLink-SHARP description (NCCL 2.17 release notes).
"""

from __future__ import annotations

from simulator.network.fabric import DomainCurve, NetworkCurve
from simulator.network.placement import Group
from simulator.network.tree import depth, network_bytes

COLLECTIVES = ("all_reduce",)


def wire_bytes(size_bytes: float, ranks: int) -> float:
    """Bytes on each link and direction."""
    return size_bytes * (1.0 + 1.0 / ranks)


def inside(size_bytes: float, ranks: int, curve: DomainCurve) -> float:
    """Seconds of an NVLS all-reduce inside one domain; below three ranks the library has no use for it."""
    return curve.seconds(hops=ranks, wire_bytes=wire_bytes(size_bytes, ranks), own_bytes=size_bytes / ranks)


def tree_across(
    size_bytes: float, group: Group, curve: DomainCurve, network: NetworkCurve, domain_nic_rate: float
) -> float:
    """Seconds of NVLSTree.

    Reduced in each domain's switch, over a double tree between domains, and multicast.
    """
    inner = wire_bytes(1.0, group.ranks_per_domain) / curve.bandwidth  # seconds per byte
    outer = network_bytes(1.0, group.domains) / (domain_nic_rate * network.efficiency)
    latency = network.latency(hops=2 * depth(group.domains), step_bytes=size_bytes, size_bytes=size_bytes)
    local_sync = curve.base_s + group.ranks_per_domain * curve.hop_s
    return local_sync + latency + size_bytes * max(inner, outer)
