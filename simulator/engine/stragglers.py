"""The slowest rank that a world of so many has on average, simulated as a straggler.

Ranks that differ from each other for a whole step, and groups whose jitter adds up over it, are not brought
together by collectives inside a layer: the step ends when the last one does. One replica is slowed down by
the expected maximum; the others wait for it where data parallelism makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, sqrt
from typing import NamedTuple

from simulator.engine.classes import cell_size, replicas
from simulator.engine.conditions import Condition
from simulator.engine.extremes import Group, expected_largest, largest
from simulator.engine.world import Layout


class Work(NamedTuple):
    """A device's kernels and messages of a step: their length, and its variance from group to group."""

    seconds: float
    variance: float


def expected_stragglers(
    layout: Layout, work: Sequence[Work], rank_spread: float
) -> dict[tuple[int, int], Condition]:
    """Conditions of all cells: the usual slowest rank of each, and the slowest of the whole world.

    ``work`` is by device; the world's slowest is put where there is most of it, in the last replica. On
    another device it matters as far as it makes that one the last.
    """
    size, count = cell_size(layout), replicas(layout)
    usual = rank_spread * largest(size).mean
    slowest = max(range(layout.devices), key=lambda device: work[device].seconds)
    seconds, variance = work[slowest]
    of_a_device = layout.world // layout.devices
    last_s = expected_largest([Group(each.seconds, rank_spread * each.seconds, of_a_device) for each in work])
    drifted_s = largest(count).mean * sqrt(variance)
    last = usual + hypot(max(0.0, last_s / seconds - 1.0 - usual), drifted_s / seconds)
    found = {
        (device, cell * size): Condition(compute=1.0 / (1.0 + usual))
        for device in range(layout.devices)
        for cell in range(count)
    }
    found[slowest, (count - 1) * size] = Condition(compute=1.0 / (1.0 + last))
    return found
