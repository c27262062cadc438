"""All-to-all as pairwise sends, and its node-limited form for mixture-of-experts dispatch.

Every rank sends size/n to each rank, its own share included (a local copy). Shares for ranks of its
domain use the scale-up link, the others its part of the NICs; both run at the same time. The node-
limited form (DeepEP, HybridEP) sends a token once per destination domain and forwards it there over the
scale-up link.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    inner = (group.ranks_per_domain - 1) / curve.bandwidth + 1.0 / curve.copy_bandwidth  # seconds per byte
    outer = remote_ranks / (rank_nic_rate * network.efficiency)
    latency = network.latency(hops=remote_ranks, step_bytes=own, size_bytes=size_bytes)
    return latency + own * max(inner, outer)


class Moved(NamedTuple):
    """Bytes of the busiest rank: its copy of its own, and per direction over its port and over its NICs."""

    own: float
    near: float
    far: float

    @property
    def total(self) -> float:
        """As if all of it were one rank's."""
        return self.own + self.near + self.far


def uneven(sent: np.ndarray, group: Group) -> Moved:
    """Of any traffic: ports and NICs send and receive at the same time, and all wait for the busiest of each.

    ``sent``: bytes from each rank of the group (rows) to each, its own on the diagonal.
    """
    domain = np.arange(group.ranks) // group.ranks_per_domain
    near, own = domain[:, None] == domain, np.diagonal(sent)
    inside, outside = (np.where(pairs, sent, 0.0) for pairs in (near, ~near))
    ports, nics = ([moved.sum(axis=direction) for direction in (0, 1)] for moved in (inside, outside))
    return Moved(float(own.max()), float(max((p - own).max() for p in ports)), float(max(map(np.max, nics))))


def uneven_inside(moved: Moved, ranks: int, curve: DomainCurve) -> float:
    """Seconds of uneven traffic inside one domain."""
    return curve.seconds(hops=ranks - 1, wire_bytes=moved.near, own_bytes=moved.own)


def uneven_across(
    moved: Moved, group: Group, curve: DomainCurve, network: NetworkCurve, rank_nic_rate: float
) -> float:
    """Seconds of uneven traffic over several domains."""
    inner = moved.near / curve.bandwidth + moved.own / curve.copy_bandwidth
    outer = moved.far / (rank_nic_rate * network.efficiency)
    hops, step = group.ranks - group.ranks_per_domain, moved.total / group.ranks
    return network.latency(hops=hops, step_bytes=step, size_bytes=moved.total) + max(inner, outer)


def distinct(copies: int, places: int, limit: int = 0) -> float:
    """Expected places that ``copies`` uniformly routed copies fall into, at most ``limit`` (0: no limit).

    P·(1 − (1 − 1/P)^k): each place is missed by all k copies with probability (1 − 1/P)^k.
    """
    allowed = min(places, limit) if limit else places
    return allowed * (1.0 - (1.0 - 1.0 / allowed) ** copies)


def deduplicated_inside(size_bytes: float, copies: int, ranks: int, curve: DomainCurve) -> float:
    """Seconds of a dispatch inside one domain that sends a token once per distinct rank."""
    row = size_bytes / copies
    touched = row * distinct(copies, ranks)
    return curve.seconds(hops=ranks - 1, wire_bytes=touched * (ranks - 1) / ranks, own_bytes=touched / ranks)


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
    forwards it to each rank of that domain that has one of its experts; both run at the same time.
    """
    row = size_bytes / copies
    local, remote = node_limited_bytes(size_bytes, copies, group, limit)
    inner = local / curve.bandwidth + row / curve.copy_bandwidth
    outer = remote / (rank_nic_rate * network.efficiency)
    latency = network.latency(hops=group.domains - 1, step_bytes=row, size_bytes=size_bytes)
    return latency + max(inner, outer)


def node_limited_bytes(size_bytes: float, copies: int, group: Group, limit: int = 0) -> tuple[float, float]:
    """What one rank sends over its scale-up port, and over its share of the NICs."""
    row = size_bytes / copies
    if group.inside_domain:
        touched = row * distinct(copies, group.ranks)
        return touched * (group.ranks - 1) / group.ranks, 0.0
    remote = distinct(copies, group.domains, limit) * (group.domains - 1) / group.domains
    forwarded = distinct(copies, min(group.ranks, limit * group.ranks_per_domain or group.ranks))
    return row * forwarded * (group.ranks_per_domain - 1) / group.ranks_per_domain, row * remote
