"""CollNet (SHARP): the InfiniBand switches add what the nodes send (Graham et al., "SHARP", COMHPC 2016).

A domain sends its partial sum up once and receives the total once, whatever the number of nodes:
``size`` per domain over all its NICs instead of twice that in a ring or tree, and one round trip
through the switch tree.
"""

from __future__ import annotations

from simulator.network.fabric import DomainCurve, NetworkCurve
from simulator.network.placement import Group


def across(
    size_bytes: float, group: Group, curve: DomainCurve, network: NetworkCurve, domain_nic_rate: float
) -> float:
    """Seconds of an all-reduce that is reduced inside the domains, then in the network."""
    local = group.ranks_per_domain
    wire = (
        size_bytes * (1.0 + 1.0 / local)
        if curve.algorithm == "nvls"
        else 2.0 * size_bytes * (local - 1) / local
    )
    inner = curve.seconds(hops=0, wire_bytes=wire, own_bytes=size_bytes / group.ranks)
    nic = size_bytes / (domain_nic_rate * network.efficiency)
    return network.base_s + 2 * network.hop_s + inner + max(0.0, nic - wire / curve.bandwidth)
