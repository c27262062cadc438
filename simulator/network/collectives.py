"""How long a collective takes alone on a cluster.

The fastest allowed algorithm and protocol, as NCCL would pick.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

from simulator.network import alltoall, collnet, nvls, pat, ring, tree
from simulator.network.estimate import TransferEstimate
from simulator.network.fabric import DomainCurve, FabricProfile, NetworkCurve, fabric_for
from simulator.network.placement import Group, GroupAxis, Placement
from simulator.network.tiers import added_latency, neighbour_share, pairwise_share
from simulator.spec.cluster import ClusterSpec

CollectiveName = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce"]
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce")
# collectives without curves of their own use those of one with the same traffic per link
_CURVES_OF = {"broadcast": "all_gather", "reduce": "reduce_scatter"}
NOTHING = TransferEstimate(0.0, "none", "none", 0.0, 0.0)


class Network:
    """Times transfers of one placement; answers are cached by (kind, size, axis)."""

    def __init__(
        self, cluster: ClusterSpec, placement: Placement, fabric_profile: FabricProfile | None = None
    ) -> None:
        self.cluster = cluster
        self.placement = placement
        self.profile = fabric_profile or fabric_for(cluster)
        self._cache: dict[tuple[str, float, str, int], TransferEstimate] = {}

    def collective(
        self, kind: CollectiveName, size_bytes: float, axis: GroupAxis, sms: int | None = None
    ) -> TransferEstimate:
        """Time of one collective running alone over the groups of ``axis``; ``size_bytes`` as in nccl-tests.

        ``sms`` caps the SMs the kernel may use (0 < sms); its bandwidth inside the domain shrinks in
        proportion below the profile's ``collective_sms``. A group of one rank takes no time.
        """
        if kind not in COLLECTIVES:
            raise ValueError(f"unknown collective {kind!r}; there are {', '.join(COLLECTIVES)}")
        key = (kind, size_bytes, axis, sms or 0)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self._fastest(kind, size_bytes, self.placement.group(axis), sms)
        return found

    def collective_over(self, kind: CollectiveName, size_bytes: float, group: Group) -> TransferEstimate:
        """The same for a group given by its shape."""
        return self._fastest(kind, size_bytes, group, None)

    def candidates(
        self, kind: CollectiveName, size_bytes: float, axis: GroupAxis
    ) -> tuple[TransferEstimate, ...]:
        """Every allowed algorithm and protocol, fastest first."""
        group = self.placement.group(axis)
        if group.ranks == 1 or size_bytes == 0:
            return (NOTHING,)
        found = self._candidates(kind, size_bytes, group, 1.0)
        return tuple(sorted(found, key=lambda e: e.seconds))

    def send_recv(self, size_bytes: float, axis: GroupAxis = "pp", stage: int = 0) -> TransferEstimate:
        """Time of a message to the next rank of ``axis``; ``pp`` from ``stage`` to the stage after it
        (or round).

        A rank pair of the axis that leaves its domain decides: all pairs of a stage send at the same time.
        """
        key = ("send_recv", size_bytes, axis, stage)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self._send_recv(size_bytes, axis, stage)
        return found

    def node_limited_all_to_all(
        self, size_bytes: float, axis: GroupAxis, copies: int, limit: int = 0
    ) -> TransferEstimate:
        """A DeepEP-like dispatch or combine of ``size_bytes`` = tokens·copies·row per rank over ``axis``.

        ``copies`` is the router's top-k; ``limit`` caps the domains a token may go to (0: no cap).
        """
        group = self.placement.group(axis)
        if group.inside_domain:
            return self.collective("all_to_all", size_bytes, axis)
        rate = group.nic_bandwidth * self._pairwise_share(group)
        found = [
            self._answer(
                alltoall.node_limited(
                    size_bytes,
                    copies,
                    group,
                    curve=domain,
                    network=network,
                    rank_nic_rate=rate,
                    limit=limit,
                ),
                network,
                group,
                "node-limited",
            )
            for domain, network in self._pairs("all_to_all", "pairwise", group)
        ]
        return min(found, key=lambda e: e.seconds)

    def _fastest(self, kind: str, size_bytes: float, group: Group, sms: int | None) -> TransferEstimate:
        if size_bytes < 0:
            raise ValueError(f"{kind} of {size_bytes} bytes: sizes are not negative")
        if group.ranks == 1 or size_bytes == 0:
            return NOTHING
        full = self.profile.scale_up.collective_sms
        slowdown = max(1.0, full / sms) if sms else 1.0
        return min(self._candidates(kind, size_bytes, group, slowdown), key=lambda e: e.seconds)

    def _candidates(
        self, kind: str, size_bytes: float, group: Group, slowdown: float
    ) -> Iterator[TransferEstimate]:
        if group.inside_domain:
            yield from self._inside(kind, size_bytes, group, slowdown)
        else:
            yield from self._across(kind, size_bytes, group)

    def _inside(
        self, kind: str, size_bytes: float, group: Group, slowdown: float
    ) -> Iterator[TransferEstimate]:
        for curve in self.profile.scale_up.of(_CURVES_OF.get(kind, kind)):
            if size_bytes > curve.limit_bytes * group.ranks:
                continue
            if curve.algorithm == "nvls":
                if not self._nvls_allowed(group.ranks):
                    continue
                seconds = nvls.inside(size_bytes, group.ranks, curve)
            elif curve.algorithm == "pairwise":
                seconds = alltoall.inside(size_bytes, group.ranks, curve)
            else:
                seconds = ring.inside(kind, size_bytes, group.ranks, curve)
            if slowdown > 1.0:
                seconds = curve.base_s + (seconds - curve.base_s) * slowdown
            yield self._answer(seconds, curve, group)

    def _across(self, kind: str, size_bytes: float, group: Group) -> Iterator[TransferEstimate]:
        neighbours = group.nic_bandwidth * neighbour_share(self.cluster.scale_out, group) * self._routing
        domain_rate = neighbours * group.ranks_per_domain
        own = _CURVES_OF.get(kind, kind)
        for domain, network in self._pairs(own, "ring", group):
            yield self._answer(
                ring.across(
                    kind, size_bytes, group, curve=domain, network=network, domain_nic_rate=domain_rate
                ),
                network,
                group,
            )
        if kind == "all_reduce":
            for domain, network in self._pairs(own, "tree", group):
                seconds = tree.across(size_bytes, group, domain, network, domain_rate)
                yield self._answer(seconds, network, group)
            for domain, network in self._pairs(own, "nvls-tree", group):
                seconds = nvls.tree_across(size_bytes, group, domain, network, domain_rate)
                yield self._answer(seconds, network, group)
            for domain, network in self._pairs(own, "collnet", group):
                seconds = collnet.across(size_bytes, group, domain, network, domain_rate)
                yield self._answer(seconds, network, group)
        if kind in ("all_gather", "reduce_scatter") and group.ranks_per_domain == 1:
            for _, network in self._pairs(own, "pat", group):
                yield self._answer(pat.across(size_bytes, group, network, neighbours), network, group)
        if kind == "all_to_all":
            rate = group.nic_bandwidth * self._pairwise_share(group)
            for domain, network in self._pairs(own, "pairwise", group):
                seconds = alltoall.across(size_bytes, group, domain, network, rate)
                yield self._answer(seconds, network, group)

    def _pairs(
        self, collective: str, algorithm: str, group: Group
    ) -> Iterator[tuple[DomainCurve, NetworkCurve]]:
        """Network curves of an algorithm, each with the curve its part inside the domain follows."""
        inner_algorithm = {"nvls-tree": "nvls", "collnet": "nvls", "tree": "ring", "pat": "ring"}
        wanted = inner_algorithm.get(algorithm, algorithm)
        if wanted == "nvls" and not self._nvls_allowed(group.ranks_per_domain):
            if algorithm == "nvls-tree":
                return
            wanted = "ring"
        if algorithm == "collnet" and not self.cluster.scale_out.in_network_reduction:
            return
        every = self.profile.scale_up.of(collective)
        curves = [c for c in every if c.algorithm == wanted]
        if not curves and algorithm == "nvls-tree":
            return
        curves = curves or [c for c in every if c.algorithm == "ring"]
        for network in self.profile.scale_out.of(collective):
            if network.algorithm == algorithm:
                matching = [c for c in curves if c.protocol == network.protocol] or curves[-1:]
                yield matching[0], network

    def _nvls_allowed(self, ranks: int) -> bool:
        return self.cluster.scale_up.multicast and ranks > 2

    def _send_recv(self, size_bytes: float, axis: GroupAxis, stage: int) -> TransferEstimate:
        group = self.placement.group(axis)
        if group.ranks == 1 or size_bytes == 0:
            return NOTHING
        inside = self.placement.stage_hop(stage).inside_domain if axis == "pp" else group.inside_domain
        curves = self.profile.scale_up.of("send_recv")
        if inside:
            found = [
                self._answer(c.seconds(hops=1, wire_bytes=size_bytes, own_bytes=0.0), c, group)
                for c in curves
            ]
        else:
            rate = group.nic_bandwidth * self._pairwise_share(group)
            found = [
                self._answer(c.base_s + c.hop_s + size_bytes / (rate * c.efficiency), c, group)
                for c in self.profile.scale_out.of("send_recv")
            ]
        return min(found, key=lambda e: e.seconds)

    def _pairwise_share(self, group: Group) -> float:
        return pairwise_share(self.cluster.scale_out, group) * self._routing

    @cached_property
    def _routing(self) -> float:
        adaptive = self.cluster.scale_out.adaptive_routing
        return 1.0 if adaptive else self.profile.scale_out.static_routing_efficiency

    def _answer(
        self,
        seconds: float,
        curve: DomainCurve | NetworkCurve,
        group: Group,
        algorithm: str = "",
    ) -> TransferEstimate:
        errors = self.profile.scale_up if group.inside_domain else self.profile.scale_out
        if not group.inside_domain:
            seconds += 2 * added_latency(self.cluster.scale_out, group.tier)
        return TransferEstimate(
            seconds, algorithm or curve.algorithm, curve.protocol, errors.random, errors.site
        )
