"""The nccl-tests table a machine would print, from the model."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, TypeAlias, get_args

from simulator.network.collectives import COLLECTIVES, CollectiveName, Network
from simulator.network.estimate import TransferEstimate
from simulator.network.placement import Placement
from simulator.spec.cluster import ClusterSpec
from simulator.spec.errors import Problem, SpecError, listed, nearest

Uncommon: TypeAlias = Literal["all_to_all_v", "send_recv"]
SHOWN: tuple[CollectiveName | Uncommon, ...] = (*COLLECTIVES, *get_args(Uncommon))
SMALLEST = 1024.0
LARGEST = 16 * 2.0**30
MOST_RANKS = 2**20  # where the cluster names no limit of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One line: size as nccl-tests prints it, seconds out of place, bandwidths in bytes/s, relative error."""

    size_bytes: float
    seconds: float
    algorithm_bandwidth: float
    bus_bandwidth: float
    algorithm: str
    protocol: str
    relative_error: float


def bus_factor(kind: str, ranks: int) -> float:
    """Bus over algorithm bandwidth (nccl-tests, ``doc/PERFORMANCE.md``)."""
    if kind == "all_reduce":
        return 2.0 * (ranks - 1) / ranks
    if kind in ("all_gather", "reduce_scatter", "all_to_all", "all_to_all_v"):
        return (ranks - 1) / ranks
    return 1.0


def collective_table(
    kind: CollectiveName | Uncommon,
    cluster: ClusterSpec,
    ranks: int,
    *,
    ranks_per_node: int = 0,
    smallest: float = SMALLEST,
    largest: float = LARGEST,
    imbalance: float = 1.0,
) -> list[TableRow]:
    """Rows for sizes that double from ``smallest`` to ``largest`` over ``ranks`` ranks.

    ``ranks_per_node`` spreads the group, as data-parallel ranks of a tensor-parallel job are: 1 puts one on
    each node. 0 fills the nodes. ``imbalance``: what the busiest rank of an ``all_to_all_v`` gets over the
    mean, which its sizes and bandwidths are.
    """
    if not 1.0 <= imbalance <= (ranks if kind == "all_to_all_v" else 1.0):
        raise ValueError(
            f"imbalance {imbalance:g}: the busiest of {ranks} ranks gets 1 to {ranks} times the mean"
            + ("" if kind == "all_to_all_v" else ", and only in an all_to_all_v")
        )
    if smallest > largest:
        raise ValueError(
            f"sizes from {smallest:,.0f} to {largest:,.0f} bytes: the last must not be the smaller"
        )
    network = Network(cluster, _placement(cluster, ranks, ranks_per_node))
    rows = []
    size = smallest
    while size <= largest:
        estimate = _estimate(network, kind, size, imbalance)
        rate = size / estimate.seconds if estimate.seconds else inf
        rows.append(
            TableRow(
                size_bytes=size,
                seconds=estimate.seconds,
                algorithm_bandwidth=rate,
                bus_bandwidth=rate * bus_factor(kind, ranks),
                algorithm=estimate.algorithm,
                protocol=estimate.protocol,
                relative_error=(estimate.random**2 + estimate.site**2) ** 0.5,
            )
        )
        size *= 2
    return rows


def _estimate(
    network: Network, kind: CollectiveName | Uncommon, size: float, imbalance: float
) -> TransferEstimate:
    if kind == "send_recv":
        return network.send_recv(size, "dp")
    if kind == "all_to_all_v":
        return network.collective("all_to_all", imbalance * size, "dp")
    return network.collective(kind, size, "dp")


def _placement(cluster: ClusterSpec, ranks: int, ranks_per_node: int) -> Placement:
    if ranks < 2:
        raise ValueError(f"{ranks} ranks: a collective needs at least 2")
    most = cluster.max_gpus or MOST_RANKS
    if ranks > most:
        whose = f"{cluster.name} has" if cluster.max_gpus else "a table takes"
        raise ValueError(f"{ranks:,} ranks: {whose} at most {most:,}")
    if ranks_per_node < 0:
        raise ValueError(f"{ranks_per_node} ranks per node: must be at least 1, or 0 to fill the nodes")
    if not ranks_per_node:
        return Placement(cluster, dp=ranks)
    if cluster.gpus_per_node % ranks_per_node or ranks % ranks_per_node:
        raise ValueError(
            f"{ranks_per_node} ranks per node: must divide the {cluster.gpus_per_node} GPUs of a "
            f"{cluster.name} node and the {ranks} ranks"
        )
    # the other GPUs of a node belong to sibling groups, which is what tensor parallelism does
    return Placement(cluster, tp=cluster.gpus_per_node // ranks_per_node, dp=ranks)


def collective_name(text: str) -> CollectiveName | Uncommon:
    """A collective by nccl-tests' or this package's name: all_reduce, AllReduce, alltoall, sendrecv …

    Raises SpecError for any other.
    """
    wanted = text.lower().replace("_", "").replace("-", "").removesuffix("perf")
    for name in SHOWN:
        if name.replace("_", "") == wanted:
            return name
    rule = f"must be a collective: {listed(SHOWN)}"
    raise SpecError(
        Problem(key_path="collective", value=text, rule=rule, suggestion=nearest(text, SHOWN, few=0))
    )
