"""Static routing: flows hashed onto equal paths collide, and the fullest path sets the pace.

Without adaptive routing a switch picks the uplink of a flow by a hash of its header (ECMP). The NICs below a
leaf throw their flows like balls into as many bins as it has uplinks. A collective waits for its slowest
flow, so of the fair share remains the mean load over the expected load of the fullest uplink; loads are taken
as independent Poisson ones (Mitzenmacher and Upfal, "Probability and Computing", on balls and bins).
"""

from __future__ import annotations

from functools import cache
from math import exp, lgamma, log

from simulator.spec.cluster import ScaleOut

ROUNDING = 1e-15  # probabilities below it no longer count


@cache
def fullest(balls: int, bins: int) -> float:
    """Expected load of the fullest of so many bins: E[max] = Σ P(max > t) over t = 0, 1, …"""
    mean = balls / bins
    expected, below, t = 0.0, 0.0, 0
    while True:
        exactly = exp(t * log(mean) - mean - lgamma(t + 1))  # t balls in a bin
        below = min(1.0, below + exactly)
        expected += 1.0 - below**bins
        if t > mean and exactly < ROUNDING:
            return expected
        t += 1


def share_left(out: ScaleOut, tier: int) -> float:
    """Share of the NIC rate left to traffic up to a level; all of it in a leaf or with adaptive routing."""
    if out.adaptive_routing or tier < 1:
        return 1.0
    leaf, above = out.tiers[0], out.tiers[1]
    nics = leaf.nodes * (1 if out.rail_optimised else out.nics_per_node)
    uplinks = max(1, round(nics / above.oversubscription))
    flows = nics * out.flows_per_nic
    return flows / uplinks / fullest(flows, uplinks)
