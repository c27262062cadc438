"""What an oversubscribed or statically routed network leaves of a NIC's rate."""

from __future__ import annotations

from simulator.network.placement import Group
from simulator.spec.cluster import ScaleOut


def neighbour_share(out: ScaleOut, group: Group) -> float:
    """Share of the NIC rate left to rings and trees, whose traffic between neighbours mostly stays
    below a switch.

    Of the m nodes of the group under one switch, a ring lets one's worth of traffic out and one's worth
    in: the uplinks, 1/oversubscription of the m·NIC below them, carry it in full while m ≥
    oversubscription.
    """
    share = 1.0
    above = 1.0
    for index, tier in enumerate(out.tiers):
        if index > group.tier:
            break
        below = 1 if index == 0 else group.nodes_per_switch[index - 1]
        above *= tier.oversubscription
        share = min(share, below / above)
    return share


def pairwise_share(out: ScaleOut, group: Group) -> float:
    """Share of the NIC rate left to all-to-all traffic.

    What leaves a switch is the part meant for nodes outside it.
    """
    share = 1.0
    above = 1.0
    for index, tier in enumerate(out.tiers):
        if index > group.tier:
            break
        above *= tier.oversubscription
        below = 1 if index == 0 else group.nodes_per_switch[index - 1]
        outside = (group.nodes - below) / max(1, group.nodes - 1)
        share = min(share, 1.0 / (above * outside) if outside > 0 else 1.0)
    return share


def added_latency(out: ScaleOut, tier: int) -> float:
    """One-way latency of the switches above the first level, which the link's own latency includes."""
    return sum(t.latency_s for t in out.tiers[1 : tier + 1])


def lap_latency(out: ScaleOut, group: Group) -> float:
    """One lap of a ring through all nodes: it leaves every switch of a level once to reach the next one."""
    lap = 0.0
    for level in range(1, group.tier + 1):
        below = max(1, group.nodes_per_switch[level - 1])
        lap += -(-group.nodes // below) * out.tiers[level].latency_s
    return lap
