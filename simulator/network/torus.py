"""Collectives on a 2-D or 3-D torus of direct links (TPU pods).

A ring runs in each dimension, both ways at once, and the dimensions work on different parts of the buffer:
every link of a chip is busy. An all-to-all is bound by the links of the longest dimension, which carry each
byte a quarter of the way round on average (Jouppi et al., "TPU v4", ISCA 2023, sections 2 and 3; Dally and
Towles, "Principles and Practices of Interconnection Networks", section 3.3).
"""

from __future__ import annotations

from simulator.network.fabric import DomainCurve

PLANE = 256  # chips of the largest pod that is two-dimensional (TPU v5e); larger ones have three


def dimensions(chips: int) -> tuple[int, ...]:
    """The sides of a pod, as equal as factors of two and three allow, the longest first."""
    count = 2 if chips <= PLANE else 3
    sides = []
    left = chips
    for remaining in range(count, 0, -1):
        ideal = left ** (1.0 / remaining)
        side = min((k for k in range(1, left + 1) if left % k == 0), key=lambda k: abs(k - ideal))
        sides.append(side)
        left //= side
    return tuple(sorted(sides, reverse=True))


def spanned(ranks: int, sides: tuple[int, ...]) -> tuple[int, ...]:
    """The extents of a group that fills one dimension after the other."""
    extents = []
    left = ranks
    for side in sides:
        if left <= 1:
            break
        extent = min(side, left)
        extents.append(extent)
        left = -(-left // extent)
    return tuple(extents)


def inside(collective: str, size_bytes: float, ranks: int, pod: int, curve: DomainCurve) -> float:
    """Seconds in a pod of ``pod`` chips; ``curve.bandwidth`` is what all links of a chip send together."""
    sides = dimensions(pod)
    extents = spanned(ranks, sides)
    rate = curve.bandwidth * len(extents) / len(sides)
    hops = sum(extent // 2 for extent in extents)
    if collective == "all_to_all":
        per_dimension = curve.bandwidth / len(sides)
        return curve.base_s + hops * curve.hop_s + size_bytes * max(extents) / 4.0 / per_dimension
    rounds = 2 if collective == "all_reduce" else 1
    wire = size_bytes if collective in ("broadcast", "reduce") else size_bytes * (ranks - 1) / ranks
    return curve.base_s + rounds * (hops * curve.hop_s + wire / rate)
