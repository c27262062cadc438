"""Uplinks of oversubscribed switch levels: which ranks share them, and whose messages cross them.

A level with full bisection carries all that the NICs below it can send: it limits nothing that they do not,
and needs no links of its own. Under a switch that a job fills in part, its ranks have their share.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np

from simulator.network.flows import nic_bandwidth
from simulator.network.placement import Placement
from simulator.network.tiers import oversubscription
from simulator.spec.cluster import ClusterSpec

Numbers: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.int64]]
Shares: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]


class Crossing(NamedTuple):
    """By switch, the share of the ranks below it whose message leaves it, and of those that it enters for."""

    out: Shares
    into: Shares


class Uplinks:
    """The uplinks from all switches of one level to the next.

    ``bandwidth``: what one rank below has of them, bytes/s per direction. ``switch``: the number of the
    switch of every rank, by pipeline device and place within it (tp varies fastest, then cp, then dp).
    """

    def __init__(self, name: str, level: int, bandwidth: float, switch: Numbers) -> None:
        self.name = name
        self.level = level
        self.bandwidth = bandwidth
        self.switch = switch
        self.ranks = self._count(switch)
        self._crossings: dict[tuple[int, int], Crossing] = {}

    def _count(self, switches: np.ndarray) -> np.ndarray:
        return np.bincount(switches.ravel(), minlength=int(self.switch.max()) + 1)

    @cached_property
    def below(self) -> np.ndarray:
        """By device and switch, the share of the ranks below the switch that are the device's."""
        return np.asarray(np.array([self._count(places) for places in self.switch]) / self.ranks)

    def most_below(self, *, joined: bool = False) -> float:
        """The most that a device's ranks are of those below a switch; ``joined``: two with equal stages."""
        return float((self.below + self.below[::-1] if joined else self.below).max())

    def crossing(self, source: int, target: int) -> Crossing:
        """Of messages from all ranks of a device to their counterparts on another."""
        found = self._crossings.get((source, target))
        if found is None:
            there, here = self.switch[target], self.switch[source]
            leave = here != there
            found = Crossing(self._count(here[leave]) / self.ranks, self._count(there[leave]) / self.ranks)
            self._crossings[source, target] = found
        return found

    def most_crossing(self, source: int, target: int) -> float:
        """The largest of these shares: what decides how fast the messages are, all sent at once."""
        return float(max(shares.max() for shares in self.crossing(source, target)))

    @cached_property
    def kind(self) -> np.ndarray:
        """By switch, a number that those have in common whose ranks load them alike."""
        devices = range(len(self.switch))
        hops = {(d, (d + step) % len(devices)) for d in devices for step in (1, -1)}
        crossings = [self.crossing(source, target) for source, target in sorted(hops)]
        loads = np.array([*self.below, *(shares for crossing in crossings for shares in crossing)])
        _, first, kinds = np.unique(loads, axis=1, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))  # numbered as they come
        return np.asarray(order[kinds.ravel()])


def uplinks_of(cluster: ClusterSpec, placement: Placement) -> tuple[Uplinks, ...]:
    """Those of every oversubscribed level above which the job has more than one switch."""
    out, found = cluster.scale_out, []
    tiers = out.tiers
    if all(tier.oversubscription == 1.0 for tier in tiers):
        return ()
    ranks = _ranks(placement)
    for level, tier in enumerate(tiers):
        nodes = tiers[level - 1].nodes if level else 1
        below = nodes * cluster.gpus_per_node
        if tier.oversubscription == 1.0 or not below or placement.world_size <= below:
            continue
        same = [each.name for each in tiers].count(tier.name) > 1
        name = f"uplinks to {tier.name}{f' {level}' if same else ''}"
        bandwidth = nic_bandwidth(cluster) / oversubscription(out, level)
        found.append(Uplinks(name, level, bandwidth, ranks // below))
    return tuple(found)


def _ranks(placement: Placement) -> Numbers:
    """All ranks by pipeline device and place within it."""
    steps = []
    for axis in ("pp", "dp", "cp", "tp"):
        size = placement.sizes[axis]
        steps.append(np.arange(size) * (placement.rank(**{axis: 1}) if size > 1 else 0))
    pp, dp, cp, tp = np.ix_(*steps)
    return np.asarray((pp + dp + cp + tp).reshape(len(pp), -1))
