"""What a transfer puts on a rank's share of the NICs, for links shared with other traffic.

A rank's share is its node's NIC bandwidth over its GPUs. Bytes are those of one direction; every direction of
a collective carries as many.
"""

from __future__ import annotations

from simulator.graph.operators import CollectiveKind
from simulator.network.placement import Group
from simulator.spec.cluster import ClusterSpec

# bytes that leave a node of a group, as a multiple of size·(n−1)/n (nccl-tests' sizes)
_PASSES = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "broadcast": 1.0, "reduce": 1.0}


def nic_bandwidth(cluster: ClusterSpec) -> float:
    """One rank's share of its node's NICs, bytes/s per direction."""
    out = cluster.scale_out
    return out.nics_per_node * out.link.bandwidth / cluster.gpus_per_node


def nic_bytes(kind: CollectiveKind, size_bytes: float, group: Group) -> float:
    """Bytes that one rank's share carries; 0 inside a scale-up domain or a node.

    Rings and trees pass the whole buffer over each domain boundary, divided over the group's ranks in it; an
    all-to-all sends the rows for ranks of other domains.
    """
    if group.inside_domain or group.nodes == 1:
        return 0.0
    if kind == "all_to_all":
        return size_bytes * (group.ranks - group.ranks_per_domain) / group.ranks
    return size_bytes * _PASSES[kind] * (group.ranks - 1) / group.ranks / group.ranks_per_domain
