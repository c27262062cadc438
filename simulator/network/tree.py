"""Double binary tree all-reduce between domains, a chain inside each.

Half of the buffer runs up and down each of two complementary trees, so every node is a leaf in one and
inner in the other, and sends each byte about twice (Sanders, Speck and Träff, "Two-tree algorithms for full
bandwidth broadcast, reduction and scan", 2009; NCCL since 2.4).
"""

from __future__ import annotations

from simulator.network.fabric import DomainCurve, NetworkCurve
from simulator.network.placement import Group


def depth(domains: int) -> int:
    """Levels between the root and the leaves: ⌊log2 N⌋, as in NCCL's tuning."""
    return domains.bit_length() - 1


def network_bytes(size_bytes: float, domains: int) -> float:
    """Bytes a domain sends in all: up and down the trees; two domains exchange the buffer once."""
    return 2.0 * size_bytes * (domains - 1) / domains


def across(
    size_bytes: float, group: Group, curve: DomainCurve, network: NetworkCurve, domain_nic_rate: float
) -> float:
    """Seconds over several domains; the chain in a domain and the trees between run as one pipeline."""
    local = group.ranks_per_domain
    chain_hops = 2 * (local - 1)
    inner = 2.0 * (local - 1) / local / curve.bandwidth  # seconds per byte
    outer = network_bytes(1.0, group.domains) / (domain_nic_rate * network.efficiency)
    latency = network.latency(hops=2 * depth(group.domains), step_bytes=size_bytes, size_bytes=size_bytes)
    return latency + chain_hops * curve.hop_s + size_bytes * max(inner, outer)
