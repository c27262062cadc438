"""What an oversubscribed network leaves of a NIC's rate, and what part of its traffic crosses uplinks.

Level i joins the switches of level i − 1 (level 0: the nodes) by uplinks that carry 1/oversubscription of
what enters them from below.
"""

from __future__ import annotations

from math import prod

from simulator.network.placement import Group
from simulator.spec.cluster import ScaleOut


def oversubscription(out: ScaleOut, level: int) -> float:
    """NIC bandwidth below the uplinks to a level over their own."""
    return prod(tier.oversubscription for tier in out.tiers[: level + 1])


def neighbours_leaving(group: Group, level: int) -> float:
    """Share of the traffic between neighbours in a ring or tree that crosses the uplinks to a level.

    Of the m nodes of the group under one switch, a ring lets one's worth of traffic out and one's worth in.
    """
    below = _nodes_below(group, level)
    return 1.0 / below if below < group.nodes else 0.0


def pairs_leaving(group: Group, level: int) -> float:
    """The same of an all-to-all: the part that is meant for nodes under other switches."""
    return (group.nodes - _nodes_below(group, level)) / max(1, group.nodes - 1)


def neighbour_share(out: ScaleOut, group: Group) -> float:
    """Share of the NIC rate left to rings and trees, all groups of a stage crossing uplinks at once.

    The uplinks carry them in full while a switch has as many nodes of the group as it is oversubscribed.
    """
    shares = (_left(out, group, level, neighbours_leaving(group, level)) for level in _crossed(group))
    return min(shares, default=1.0)


def pairwise_share(out: ScaleOut, group: Group) -> float:
    """Share of the NIC rate left to all-to-all traffic, all ranks of a stage sending at once."""
    shares = (_left(out, group, level, pairs_leaving(group, level)) for level in _crossed(group))
    return min(shares, default=1.0)


def _crossed(group: Group) -> range:
    return range(group.tier + 1)


def _left(out: ScaleOut, group: Group, level: int, leaving: float) -> float:
    at_once = leaving * (group.stage_shares[level] if group.stage_shares else 1.0)
    return min(1.0, 1.0 / (oversubscription(out, level) * at_once)) if at_once > 0 else 1.0


def _nodes_below(group: Group, level: int) -> int:
    """Most of the group's nodes that share the uplinks to a level."""
    return group.nodes_per_switch[level - 1] if level else 1


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
