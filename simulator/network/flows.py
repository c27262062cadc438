"""What a transfer puts on a rank's links, for links shared with other traffic.

A rank has its own port of the scale-up domain, its share of the node's NICs (their bandwidth over the
GPUs) and, where switches are oversubscribed, of their uplinks. Bytes are those of one direction; every
direction of a collective carries as many.
"""

from __future__ import annotations

from typing import NamedTuple

from simulator.graph.operators import CollectiveKind
from simulator.network.alltoall import node_limited_bytes
from simulator.network.placement import Group, Hop
from simulator.spec.cluster import ClusterSpec

# bytes that pass every member of a ring, as a multiple of size·(n−1)/n (nccl-tests' sizes)
_PASSES = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0}


class Load(NamedTuple):
    """Bytes of one rank, per direction. ``leaving``: of the NIC's, those that cross each kind of uplinks."""

    nic: float = 0.0
    scale_up: float = 0.0
    leaving: tuple[float, ...] = ()


def nic_bandwidth(cluster: ClusterSpec) -> float:
    """One rank's share of its node's NICs, bytes/s per direction."""
    out = cluster.scale_out
    return out.nics_per_node * out.link.bandwidth / cluster.gpus_per_node


def collective_load(kind: CollectiveKind, size_bytes: float, group: Group, algorithm: str) -> Load:
    """What a collective puts on the links of each of its ranks.

    Rings and trees pass the whole buffer over each domain boundary, divided over the group's ranks in it, and
    from rank to rank inside; an all-to-all sends each rank its rows. The switch of NVLS reads every buffer
    once and writes the sum to it.
    """
    n, local = group.ranks, group.ranks_per_domain
    if n == 1:
        return Load()
    if kind == "all_to_all":
        return Load(*_sides(group, size_bytes * (n - local) / n, size_bytes * (local - 1) / n))
    buffer = size_bytes if kind in ("broadcast", "reduce") else size_bytes * _PASSES[kind] * (n - 1) / n
    if algorithm == "nvls" and group.inside_domain:
        return Load(0.0, size_bytes * (1.0 + 1.0 / n))
    inside = buffer if group.inside_domain else buffer * (local - 1) / local
    return Load(*_sides(group, buffer / local, inside))


def node_limited_load(size_bytes: float, copies: int, limit: int, group: Group) -> Load:
    """The same for a node-limited all-to-all."""
    local, remote = node_limited_bytes(size_bytes, copies, group, limit)
    return Load(*_sides(group, remote, local))


def message_load(size_bytes: float, hop: Hop) -> Load:
    """The same for a message to a neighbour, all ranks sending at once."""
    if hop.inside_domain:
        return Load(0.0, size_bytes)
    return Load() if hop.inside_node else Load(size_bytes, 0.0)


def _sides(group: Group, across: float, inside: float) -> tuple[float, float]:
    """Domains of one node are joined by host links, which nobody else is taken to use."""
    if group.inside_domain or group.nodes == 1:
        return 0.0, inside
    return across, inside
