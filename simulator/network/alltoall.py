"""All-to-all as pairwise sends, and its node-limited form for mixture-of-experts dispatch.

Every rank sends size/n to each rank, its own share included (a local copy). Shares for ranks of its
domain use the scale-up link, the others its part of the NICs; both run at the same time. The node-
limited form (DeepEP, HybridEP) sends a token once per destination domain and forwards it there over the
scale-up link.
"""

from __future__ import annotations

from simulator.network.fabric import DomainCurve, NetworkCurve
from simulator.network.placement import Group


def inside(size_bytes: float, ranks: int, curve: DomainCurve) -> float:
    """Seconds inside one domain."""
    own = size_bytes / ranks
    return curve.seconds(hops=ranks - 1, wire_bytes=size_bytes - own, own_bytes=own)


def across(
    size_bytes: float, group: Group, curve: DomainCurve, network: NetworkCurve, rank_nic_rate: float
) -> float:
    """Seconds over several domains, a message to every other rank."""
    own = size_bytes / group.ranks
    remote_ranks = group.ranks - group.ranks_per_domain
    local = own * (group.ranks_per_domain - 1)
    inner = curve.seconds(hops=group.ranks_per_domain - 1, wire_bytes=local, own_bytes=own)
    nic = own * remote_ranks / (rank_nic_rate * network.efficiency)
    return network.base_s + remote_ranks * network.hop_s + inner + max(0.0, nic - local / curve.bandwidth)


def distinct_domains(copies: int, domains: int, limit: int = 0) -> float:
    """Expected domains that ``copies`` uniformly routed copies of a token fall into, at most ``limit``
    (0: no limit).

    D·(1 − (1 − 1/D)^k): each domain is missed by all k copies with probability (1 − 1/D)^k.
    """
    allowed = min(domains, limit) if limit else domains
    return allowed * (1.0 - (1.0 - 1.0 / allowed) ** copies)


def node_limited(
    size_bytes: float,
    copies: int,
    group: Group,
    *,
    curve: DomainCurve,
    network: NetworkCurve,
    rank_nic_rate: float,
    limit: int = 0,
) -> float:
    """Seconds of a dispatch (or combine) of ``size_bytes`` = tokens · copies · row per rank, node-limited.

    A token crosses the NICs once per distinct remote domain, to the rank of the same index there, which
    forwards each copy to its expert's rank; forwarding and sending overlap.
    """
    row = size_bytes / copies
    touched = distinct_domains(copies, group.domains, limit)
    remote = touched * (group.domains - 1) / group.domains
    local = size_bytes * (group.ranks_per_domain - 1) / group.ranks_per_domain
    inner = curve.seconds(
        hops=group.ranks_per_domain - 1, wire_bytes=local, own_bytes=size_bytes / group.ranks
    )
    nic = row * remote / (rank_nic_rate * network.efficiency)
    latency = network.base_s + (group.domains - 1) * network.hop_s
    return latency + inner + max(0.0, nic - local / curve.bandwidth)
