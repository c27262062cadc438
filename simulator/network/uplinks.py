"""Uplinks of oversubscribed switch levels: which ranks share them, and whose messages cross them.

A level with full bisection carries all that the NICs below it can send: it limits nothing that they do not,
and needs no links of its own. Under a switch that a job fills in part, its ranks have their share.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Loads:
    """What some of a device's places put on a level's uplinks, as shares of the ranks below each switch.

    ``switch``: of every rank, by pipeline device and place within it; ``places``: which of them count.
    """

    def __init__(self, switch: Numbers, ranks: np.ndarray, places: np.ndarray) -> None:
        self._switch = switch
        self._ranks = ranks
        self._places = places
        self._crossings: dict[tuple[int, int], Crossing] = {}

    def _share(self, switches: np.ndarray) -> np.ndarray:
        return np.asarray(np.bincount(switches, minlength=len(self._ranks)) / self._ranks)

    @cached_property
    def below(self) -> np.ndarray:
        """By device and switch: the places below it."""
        return np.array([self._share(switches[self._places]) for switches in self._switch])

    def crossing(self, source: int, target: int) -> Crossing:
        """Of messages from a device to their counterparts on another."""
        found = self._crossings.get((source, target))
        if found is None:
            here, there = self._switch[source], self._switch[target]
            leave = self._places & (here != there)
            found = Crossing(self._share(here[leave]), self._share(there[leave]))
            self._crossings[source, target] = found
        return found

    @property
    def rows(self) -> list[np.ndarray]:
        """By switch: everything that traffic in a stage, and between neighbours, puts on it."""
        devices = range(len(self._switch))
        hops = sorted({(d, (d + step) % len(devices)) for d in devices for step in (1, -1)})
        return [*self.below, *(shares for hop in hops for shares in self.crossing(*hop))]


def alike(loads: Sequence[Loads]) -> np.ndarray:
    """By switch: the first of those that all of these load alike."""
    rows = np.array([row for each in loads for row in each.rows])
    _, first, kind = np.unique(rows, axis=1, return_index=True, return_inverse=True)
    return np.asarray(first[kind.ravel()])


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
        self.ranks = np.bincount(switch.ravel())
        self._all = self.of(np.ones(switch.shape[1], dtype=bool))

    def of(self, places: np.ndarray) -> Loads:
        """What some places of all devices put on them."""
        return Loads(self.switch, self.ranks, places)

    @property
    def below(self) -> np.ndarray:
        """By device and switch, the share of the ranks below the switch that are the device's."""
        return self._all.below

    def most_below(self, *, joined: bool = False) -> float:
        """The most that a device's ranks are of those below a switch; ``joined``: two with equal stages."""
        return float((self.below + self.below[::-1] if joined else self.below).max())

    def crossing(self, source: int, target: int) -> Crossing:
        """Of messages from all ranks of a device to their counterparts on another."""
        return self._all.crossing(source, target)

    def most_crossing(self, source: int, target: int) -> float:
        """The largest of these shares: what decides how fast the messages are, all sent at once."""
        return float(max(shares.max() for shares in self.crossing(source, target)))

    @cached_property
    def alike(self) -> np.ndarray:
        """By switch: the first of those whose ranks load them alike."""
        return alike([self._all])


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
