"""Every algorithm and protocol a collective may use on a group, each with its time.

Which are allowed follows NCCL: NVLS where the switch reduces and more than two ranks share a domain; NVLSTree
and trees for an all-reduce over several domains; CollNet where the network reduces; PAT with one rank per
domain; sends for an all-to-all. Sizes may be arrays: the formulas are plain arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from simulator.network import alltoall, collnet, hierarchical, nvls, pat, ring, torus, tree
from simulator.network.ecmp import share_left
from simulator.network.fabric import DomainCurve, FabricProfile, NetworkCurve, ScaleUpProfile, load_scale_up
from simulator.network.placement import Group, Hop
from simulator.network.tiers import added_latency, lap_latency, neighbour_share, pairwise_share
from simulator.spec.cluster import ClusterSpec

# bytes/s one SM moves over NVLink in DeepEP's normal mode: median over 4 to 24 SMs on H100, H200 and B200
# nodes (ai-dynamo/aiconfigurator DeepEP tables, Apache-2.0); it saturates at the link
DISPATCH_SM_BANDWIDTH = 14e9


class Routing(NamedTuple):
    """How a mixture-of-experts layer spreads tokens."""

    copies: int  # the router's top-k
    limit: int = 0  # most domains a token may go to; 0: no limit
    sms: int = 24  # that run the dispatch kernel; 0: as many as fill the link


Candidate: TypeAlias = tuple[float, DomainCurve | NetworkCurve]
# collectives without curves of their own follow one with the same traffic per link
CURVES_OF = {"broadcast": "all_gather", "reduce": "reduce_scatter"}
# the algorithm whose domain curve carries the part of a network algorithm inside the domains
INNER = {"tree": "ring", "pat": "ring", "nvls-tree": "nvls", "collnet": "nvls"}


def candidates(
    kind: str, size_bytes: float, group: Group, cluster: ClusterSpec, profile: FabricProfile
) -> Iterator[Candidate]:
    """Seconds and curve of each algorithm and protocol allowed for a group of two ranks or more."""
    if group.inside_domain:
        yield from _inside(kind, size_bytes, group, cluster, profile.scale_up)
    elif group.nodes == 1:
        yield from _inside(kind, size_bytes, group, cluster, host_links(cluster))
    else:
        yield from _across(kind, size_bytes, group, cluster, profile)
        if cluster.scale_out.hierarchical:
            yield from _in_steps(kind, size_bytes, group, cluster, profile)


def _in_steps(
    kind: str, size_bytes: float, group: Group, cluster: ClusterSpec, profile: FabricProfile
) -> Iterator[Candidate]:
    """Each step by its fastest algorithm, which is none in steps again."""
    fastest = [
        min(candidates(part.kind, part.size_bytes, part.group, cluster, profile), key=itemgetter(0))
        for part in hierarchical.parts(kind, size_bytes, group)
    ]
    if fastest:
        curve = replace(fastest[0][1], algorithm="hierarchical")
        yield sum(seconds for seconds, _ in fastest), curve


def host_links(cluster: ClusterSpec) -> ScaleUpProfile:
    """What joins the scale-up domains of one node, such as bridged pairs: the GPUs' links to the host."""
    return load_scale_up("pcie").on_link(cluster.host.link.bandwidth)


def send_recv(
    size_bytes: float, hop: Hop, rate: float, cluster: ClusterSpec, profile: FabricProfile
) -> Iterator[Candidate]:
    """The same for a message between two ranks, of whose NICs ``rate`` is left as all pairs send at once."""
    if hop.inside_domain or hop.inside_node:
        links = profile.scale_up if hop.inside_domain else host_links(cluster)
        for curve in links.of("send_recv"):
            yield curve.seconds(hops=1, wire_bytes=size_bytes, own_bytes=0.0), curve
        return
    rate *= share_left(cluster.scale_out, hop.tier)
    for network in profile.scale_out.of("send_recv"):
        latency = network.latency(hops=1, step_bytes=size_bytes, size_bytes=size_bytes) + added_latency(
            cluster.scale_out, hop.tier
        )
        yield latency + size_bytes / (rate * network.efficiency), network


def node_limited_all_to_all(
    size_bytes: float, routing: Routing, group: Group, cluster: ClusterSpec, profile: FabricProfile
) -> Iterator[Candidate]:
    """A dispatch that sends each token once per domain (inside one: once per rank), as DeepEP does.

    DeepEP's threads load and store every element, so its SMs limit it; HybridEP's bulk copies fill the link.
    """
    per_link = routing.sms * DISPATCH_SM_BANDWIDTH or inf
    curves = [replace(c, bandwidth=min(c.bandwidth, per_link)) for c in profile.scale_up.of("all_to_all")]
    if group.inside_domain:
        for curve in curves:
            if size_bytes > curve.limit_bytes * group.ranks:
                continue
            yield alltoall.deduplicated_inside(size_bytes, routing.copies, group.ranks, curve), curve
        return
    share = pairwise_share(cluster.scale_out, group) * share_left(cluster.scale_out, group.tier)
    for network in profile.scale_out.of("all_to_all"):
        seconds = alltoall.node_limited(
            size_bytes,
            routing.copies,
            group,
            curve=curves[-1],
            network=network,
            rank_nic_rate=group.nic_bandwidth * share,
            limit=routing.limit,
        )
        yield seconds + added_latency(cluster.scale_out, group.tier), network


def all_to_all_v(
    moved: alltoall.Moved, group: Group, cluster: ClusterSpec, profile: FabricProfile
) -> Iterator[Candidate]:
    """An uneven all-to-all, by what the busiest rank moves. A torus has it as an even one of its size."""
    out = cluster.scale_out
    if group.nodes > 1 and not group.inside_domain:
        rate = group.nic_bandwidth * pairwise_share(out, group) * share_left(out, group.tier)
        for network, curve in _pairs("all_to_all", "pairwise", group, cluster, profile):
            seconds = alltoall.uneven_across(moved, group, curve, network, rate)
            yield seconds + 2 * added_latency(out, group.tier), network
        return
    links = profile.scale_up if group.inside_domain else host_links(cluster)
    for inner in links.of("all_to_all"):
        if inner.algorithm == "torus":
            yield from _inside("all_to_all", moved.total, group, cluster, links)
        elif moved.total <= inner.limit_bytes * group.ranks:
            yield alltoall.uneven_inside(moved, group.ranks, inner), inner


def _inside(
    kind: str, size_bytes: float, group: Group, cluster: ClusterSpec, links: ScaleUpProfile
) -> Iterator[Candidate]:
    for curve in links.of(CURVES_OF.get(kind, kind)):
        if size_bytes > curve.limit_bytes * group.ranks:
            continue
        if curve.algorithm == "torus":
            yield torus.inside(kind, size_bytes, group.ranks, cluster.scale_up.domain_size, curve), curve
        elif curve.algorithm == "nvls":
            if _switch_reduces(cluster, group.ranks):
                yield nvls.inside(size_bytes, group.ranks, curve), curve
        elif curve.algorithm == "pairwise":
            yield alltoall.inside(size_bytes, group.ranks, curve), curve
        else:
            yield ring.inside(kind, size_bytes, group.ranks, curve), curve


def _across(
    kind: str, size_bytes: float, group: Group, cluster: ClusterSpec, profile: FabricProfile
) -> Iterator[Candidate]:
    hops = share_left(cluster.scale_out, group.tier)
    neighbours = group.nic_bandwidth * neighbour_share(cluster.scale_out, group) * hops
    pairs = group.nic_bandwidth * pairwise_share(cluster.scale_out, group) * hops
    laps = 2 if kind == "all_reduce" else 1
    extra = {"ring": laps * lap_latency(cluster.scale_out, group)}
    for algorithm in _algorithms(kind, group):
        for network, curve in _pairs(CURVES_OF.get(kind, kind), algorithm, group, cluster, profile):
            domain_rate = neighbours * min(group.ranks_per_domain, network.max_nics)
            if algorithm == "ring":
                seconds = ring.across(
                    kind, size_bytes, group, curve=curve, network=network, domain_nic_rate=domain_rate
                )
            elif algorithm == "pairwise":
                seconds = alltoall.across(size_bytes, group, curve, network, pairs)
            elif algorithm == "pat":
                seconds = pat.across(size_bytes, group, network, neighbours)
            else:
                pipeline = {"tree": tree.across, "nvls-tree": nvls.tree_across, "collnet": collnet.across}
                seconds = pipeline[algorithm](size_bytes, group, curve, network, domain_rate)
            yield seconds + extra.get(algorithm, 2 * added_latency(cluster.scale_out, group.tier)), network


def _algorithms(kind: str, group: Group) -> tuple[str, ...]:
    if kind == "all_reduce":
        return ("ring", "tree", "nvls-tree", "collnet")
    if kind == "all_to_all":
        return ("pairwise",)
    if kind in ("all_gather", "reduce_scatter") and group.ranks_per_domain == 1:
        return ("ring", "pat")
    return ("ring",)


def _pairs(
    collective: str, algorithm: str, group: Group, cluster: ClusterSpec, profile: FabricProfile
) -> Iterator[tuple[NetworkCurve, DomainCurve]]:
    """Network curves of an algorithm, each with the curve its part inside the domain follows."""
    if algorithm == "collnet" and not cluster.scale_out.in_network_reduction:
        return
    inside = profile.scale_up.of(collective)
    wanted = INNER.get(algorithm, algorithm)
    if wanted == "nvls" and not _switch_reduces(cluster, group.ranks_per_domain):
        if algorithm == "nvls-tree":
            return
        wanted = "ring"
    curves = {c.protocol: c for c in inside if c.algorithm == wanted}
    if not curves:  # a generation without NVLS, or a torus
        if algorithm == "nvls-tree":
            return
        curves = {c.protocol: c for c in inside if c.algorithm in ("ring", "torus")}
    last = list(curves.values())[-1]
    # what Simple takes per hop beyond LL128 is its pipeline filling, which the network curves have too
    hop_s = curves["LL128"].hop_s if "LL128" in curves else last.hop_s
    for network in profile.scale_out.of(collective):
        if network.algorithm == algorithm:
            yield network, replace(curves.get(network.protocol, last), hop_s=hop_s)


def _switch_reduces(cluster: ClusterSpec, ranks: int) -> bool:
    return cluster.scale_up.multicast and ranks > 2
