"""Ring collectives: every rank sends to its successor, ``steps`` times, a chunk of size/ranks.

Bandwidth terms from Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication
Operations in MPICH", 2005, section 4; hop counts as in NCCL's ``ncclTopoTuneModel``
(``src/graph/tuning.cc``).
"""

from __future__ import annotations

from simulator.network.fabric import DomainCurve, NetworkCurve
from simulator.network.placement import Group


def steps(collective: str, ranks: int) -> int:
    """Chunk transfers one after the other: all-reduce is a reduce-scatter and an all-gather."""
    if collective == "all_reduce":
        return 2 * (ranks - 1)
    return ranks - 1


def wire_bytes(collective: str, size_bytes: float, ranks: int) -> float:
    """Bytes each rank puts on its outgoing link. A broadcast or reduction passes the whole buffer along."""
    if collective in ("broadcast", "reduce"):
        return size_bytes
    return steps(collective, ranks) * size_bytes / ranks


def inside(collective: str, size_bytes: float, ranks: int, curve: DomainCurve) -> float:
    """Seconds of a ring inside one domain."""
    return curve.seconds(
        hops=steps(collective, ranks),
        wire_bytes=wire_bytes(collective, size_bytes, ranks),
        own_bytes=size_bytes / ranks,
    )


def across(
    collective: str,
    size_bytes: float,
    group: Group,
    *,
    curve: DomainCurve,
    network: NetworkCurve,
    domain_nic_rate: float,
) -> float:
    """Seconds of a ring through several domains.

    One lap crosses each domain boundary once, so ``domains/ranks`` of the steps are network hops. Each
    channel of the ring leaves a domain through its own NIC, so the ring runs at the slower of a rank's links
    and all the NICs the group has in a domain (``domain_nic_rate``).
    """
    total = steps(collective, group.ranks)
    network_hops = total * group.domains / group.ranks
    wire = wire_bytes(collective, size_bytes, group.ranks)
    slowest = min(curve.bandwidth, domain_nic_rate * network.efficiency)
    own = size_bytes / group.ranks
    latency = network.latency(hops=network_hops, step_bytes=own, size_bytes=size_bytes)
    return latency + (total - network_hops) * curve.hop_s + wire / slowest + own / curve.copy_bandwidth
