"""PAT, parallel aggregated trees: all-gather and reduce-scatter in log2(n) rounds, one rank per domain.

Jeaugey 2025, "PAT: a new algorithm for all-gather and reduce-scatter operations at scale" (arXiv
2506.20252). The bytes are those of a ring; the rounds double their distance. NCCL's tuning adds a
linear term for the local reordering.
"""

from __future__ import annotations

from simulator.network.fabric import NetworkCurve
from simulator.network.placement import Group
from simulator.network.tree import depth

LOCAL_STEP_S = (
    2.8e-6 / 3.5
)  # NCCL tuning.cc: 2.8 us per rank at its Simple latencies, scaled like its hop (1/3.5)


def across(size_bytes: float, group: Group, network: NetworkCurve, nic_rate: float) -> float:
    """Seconds of an all-gather or reduce-scatter with one rank in each domain."""
    n = group.ranks
    wire = size_bytes * (n - 1) / n
    latency = network.latency(hops=depth(n), step_bytes=size_bytes / n, size_bytes=size_bytes)
    return latency + n * LOCAL_STEP_S + wire / (nic_rate * network.efficiency)
