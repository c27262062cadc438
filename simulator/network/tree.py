"""Double binary tree all-reduce between domains, a chain inside each (Sanders, Speck and Träff 2009;
NCCL 2.4).

Half of the buffer runs up and down each of two complementary trees, so every node is a leaf in one and
inner in the other, and sends each byte about twice.
"""

from __future__ import annotations

from math import ceil, log2

from simulator.network.fabric import DomainCurve, NetworkCurve
from simulator.network.placement import Group


def depth(domains: int) -> int:
    """Levels between the root and the leaves."""
    return ceil(log2(domains)) if domains > 1 else 0


def network_bytes(size_bytes: float, domains: int) -> float:
    """Bytes a domain sends in all: up and down the trees; two domains exchange the buffer once."""
    return 2.0 * size_bytes * (domains - 1) / domains


def across(
    size_bytes: float, group: Group, curve: DomainCurve, network: NetworkCurve, domain_nic_rate: float
) -> float:
    """Seconds of a tree all-reduce over several domains.

    The chain in a domain overlaps with the trees (pipelined).
    """
    local = group.ranks_per_domain
    wire = 2.0 * size_bytes * (local - 1) / local
    inner = curve.seconds(hops=2 * (local - 1), wire_bytes=wire, own_bytes=size_bytes / group.ranks)
    nic = network_bytes(size_bytes, group.domains) / (domain_nic_rate * network.efficiency)
    excess = max(0.0, nic - wire / curve.bandwidth)
    return network.base_s + 2 * depth(group.domains) * network.hop_s + inner + excess
