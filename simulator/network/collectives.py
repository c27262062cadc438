"""How long a transfer takes alone on a cluster: the fastest allowed algorithm and protocol."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import Literal, get_args

import numpy as np

from simulator.network.alltoall import uneven
from simulator.network.candidates import (
    Candidate,
    Routing,
    all_to_all_v,
    candidates,
    node_limited_all_to_all,
    send_recv,
)
from simulator.network.estimate import TransferEstimate
from simulator.network.fabric import FabricProfile, fabric_for
from simulator.network.flows import (
    Load,
    collective_load,
    message_load,
    nic_bandwidth,
    node_limited_load,
)
from simulator.network.placement import Group, GroupAxis, Placement
from simulator.network.tiers import neighbours_leaving, pairs_leaving, pairwise_share
from simulator.network.uplinks import Uplinks, uplinks_of
from simulator.spec.cluster import ClusterSpec

CollectiveName = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce"]
COLLECTIVES: tuple[CollectiveName, ...] = get_args(CollectiveName)
NOTHING = TransferEstimate(0.0, "none", "none", 0.0, 0.0)


class Network:
    """Times the transfers of one placement; answers are cached."""

    def __init__(
        self, cluster: ClusterSpec, placement: Placement, fabric_profile: FabricProfile | None = None
    ) -> None:
        self.cluster = cluster
        self.placement = placement
        self.profile = fabric_profile or fabric_for(cluster)
        self._cache: dict[tuple[Hashable, ...], TransferEstimate] = {}

    def collective(
        self, kind: CollectiveName, size_bytes: float, axis: GroupAxis, sms: int | None = None
    ) -> TransferEstimate:
        """Time of one collective running alone over the groups of ``axis``; ``size_bytes`` as in nccl-tests.

        ``sms`` caps the SMs the kernel may use: below the profile's ``collective_sms`` it moves
        proportionally fewer bytes per second. A group of one rank takes no time.
        """
        if kind not in COLLECTIVES:
            raise ValueError(f"unknown collective {kind!r}; there are {', '.join(COLLECTIVES)}")
        key = (kind, size_bytes, axis, sms)
        found = self._cache.get(key)
        if found is None:
            group = self._group(axis)
            found = self._cache[key] = self._fastest(self._candidates(kind, size_bytes, group), group, sms)
        return found

    def all_to_all_v(self, sent: Sequence[Sequence[float]], axis: GroupAxis) -> TransferEstimate:
        """Time of an uneven all-to-all over a group of ``axis``: the busiest rank decides.

        ``sent``: bytes from each of its ranks to each. Where one rank gets f times the mean it is an even
        all-to-all of f times the size. Raises ValueError for another number of ranks.
        """
        group, traffic = self._group(axis), np.asarray(sent, dtype=float)
        if traffic.shape != (group.ranks, group.ranks) or traffic.min() < 0:
            raise ValueError(f"{axis}: bytes between {group.ranks} × {group.ranks} ranks, none negative")
        if group.ranks == 1 or not traffic.any():
            return NOTHING
        return self._fastest(
            all_to_all_v(uneven(traffic, group), group, self.cluster, self.profile), group, None
        )

    def candidates(
        self, kind: CollectiveName, size_bytes: float, axis: GroupAxis
    ) -> tuple[TransferEstimate, ...]:
        """Every allowed algorithm and protocol, fastest first."""
        group = self._group(axis)
        found = [self._answer(c, group, None) for c in self._candidates(kind, size_bytes, group)]
        return tuple(sorted(found, key=lambda estimate: estimate.seconds))

    def send_recv(self, size_bytes: float, axis: GroupAxis = "pp", stage: int = 0) -> TransferEstimate:
        """Time of a message to the next rank of ``axis``, all ranks sending at once.

        On ``pp`` it goes from ``stage`` to the one after it (the last sends to the first); where some pair of
        ranks leaves its domain, that pair decides.
        """
        key = ("send_recv", size_bytes, axis, stage)
        found = self._cache.get(key)
        if found is None:
            group = self._group(axis)
            hop = self.placement.stage_hop(stage) if axis == "pp" else group.worst_hop
            several = group.ranks > 1 and size_bytes > 0
            share = (
                self._stage_share(stage) if axis == "pp" else pairwise_share(self.cluster.scale_out, group)
            )
            rate = group.nic_bandwidth * share
            options = send_recv(size_bytes, hop, rate, self.cluster, self.profile) if several else ()
            inside = hop.inside_domain or hop.inside_node
            found = self._cache[key] = self._fastest(options, group, None, inside=inside)
        return found

    def _group(self, axis: GroupAxis) -> Group:
        """The groups of an axis; where switches are oversubscribed, with how many of them share uplinks."""
        group = self.placement.group(axis)
        if not self.uplinks or axis in ("pp", "world"):
            return group
        joined, shares = axis in self.placement.joined, [1.0] * len(self.cluster.scale_out.tiers)
        for up in self.uplinks:
            shares[up.level] = up.most_below(joined=joined)
        return replace(group, stage_shares=tuple(shares))

    def _stage_share(self, stage: int) -> float:
        """Share of the NIC rate left to messages from a stage to the next, those of all its ranks at once."""
        hop = (stage, (stage + 1) % self.placement.sizes["pp"])
        rooms = (up.bandwidth / up.most_crossing(*hop) for up in self.uplinks if up.most_crossing(*hop))
        return min(1.0, min(rooms, default=inf) / self.nic_bandwidth)

    @cached_property
    def uplinks(self) -> tuple[Uplinks, ...]:
        """Those of oversubscribed switches that the job's ranks share."""
        return uplinks_of(self.cluster, self.placement)

    @cached_property
    def nic_bandwidth(self) -> float:
        """One rank's share of its node's NICs, bytes/s per direction."""
        return nic_bandwidth(self.cluster)

    @property
    def scale_up_bandwidth(self) -> float:
        """One rank's port of the scale-up domain, bytes/s per direction."""
        return self.cluster.scale_up.link.bandwidth

    def collective_load(self, kind: CollectiveName, size_bytes: float, axis: GroupAxis) -> Load:
        """What a collective puts on a rank's links."""
        algorithm, group = self.collective(kind, size_bytes, axis).algorithm, self._group(axis)
        load = collective_load(kind, size_bytes, group, algorithm)
        return self._with_leaving(load, group, pairwise=kind == "all_to_all")

    def node_limited_load(self, size_bytes: float, axis: GroupAxis, copies: int, limit: int = 0) -> Load:
        """The same for a node-limited all-to-all."""
        group = self._group(axis)
        load = node_limited_load(size_bytes, copies, limit, group)
        return self._with_leaving(load, group, pairwise=True)

    def message_load(self, size_bytes: float, axis: GroupAxis = "pp", stage: int = 0) -> Load:
        """The same for a message to a neighbour; which of a stage's messages cross uplinks, these tell."""
        if axis == "pp":
            return message_load(size_bytes, self.placement.stage_hop(stage))
        group = self._group(axis)
        return self._with_leaving(message_load(size_bytes, group.worst_hop), group, pairwise=False)

    def _with_leaving(self, load: Load, group: Group, *, pairwise: bool) -> Load:
        if not load.nic or not self.uplinks:
            return load
        leaving = pairs_leaving if pairwise else neighbours_leaving
        return load._replace(leaving=tuple(load.nic * leaving(group, up.level) for up in self.uplinks))

    def node_limited_all_to_all(
        self, size_bytes: float, axis: GroupAxis, copies: int, limit: int = 0, *, sms: int = 24
    ) -> TransferEstimate:
        """A DeepEP-like dispatch or combine of ``size_bytes`` = tokens·copies·row per rank over ``axis``.

        ``copies`` is the router's top-k, ``limit`` the most domains a token goes to (0: no limit), ``sms``
        the SMs of the kernel (0: as many as fill the link).
        """
        group = self._group(axis)
        if group.ranks == 1 or size_bytes == 0:
            return NOTHING
        routing = Routing(copies=copies, limit=limit, sms=sms)
        key = ("node_limited", size_bytes, axis, routing)
        found = self._cache.get(key)
        if found is None:
            options = node_limited_all_to_all(size_bytes, routing, group, self.cluster, self.profile)
            best = self._fastest(options, group, None)
            found = self._cache[key] = best._replace(algorithm="node-limited")
        return found

    def _candidates(self, kind: str, size_bytes: float, group: Group) -> Iterable[Candidate]:
        if size_bytes < 0:
            raise ValueError(f"{kind} of {size_bytes} bytes: sizes are not negative")
        if group.ranks == 1 or size_bytes == 0:
            return ()
        return candidates(kind, size_bytes, group, self.cluster, self.profile)

    def _fastest(
        self, options: Iterable[Candidate], group: Group, sms: int | None, *, inside: bool | None = None
    ) -> TransferEstimate:
        answers = [self._answer(option, group, sms, inside=inside) for option in options]
        return min(answers, key=lambda estimate: estimate.seconds, default=NOTHING)

    def _answer(
        self, candidate: Candidate, group: Group, sms: int | None, *, inside: bool | None = None
    ) -> TransferEstimate:
        seconds, curve = candidate
        full = self.profile.scale_up.collective_sms
        if sms and sms < full:
            seconds = curve.base_s + (seconds - curve.base_s) * full / sms
        within = group.inside_domain if inside is None else inside
        errors = self.profile.scale_up if within else self.profile.scale_out
        return TransferEstimate(seconds, curve.algorithm, curve.protocol, errors.random, errors.site)
