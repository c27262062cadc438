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
    nvls = curve.algorithm == "nvls"
    wire = 1.0 + 1.0 / local if nvls else 2.0 * (local - 1) / local  # per byte of the buffer
    outer = 1.0 / (domain_nic_rate * network.efficiency)
    latency = network.latency(hops=2, step_bytes=size_bytes, size_bytes=size_bytes)
    local_sync = curve.base_s + (local if nvls else 2 * (local - 1)) * curve.hop_s
    return local_sync + latency + size_bytes * max(wire / curve.bandwidth, outer)
