"""PipeDream: 1F1B that never flushes; every microbatch updates the weights, so several versions are kept."""

from __future__ import annotations

from simulator.schedule import one_f_one_b
from simulator.schedule.definition import Schedule


def weight_versions(p: int, i: int) -> int:
    """Weight stashing: a version for every microbatch between its forward and its backward on device i."""
    return p - i


SCHEDULE = Schedule(
    name="pipedream",
    reference="Narayanan et al. 2019 (PipeDream), arXiv 1806.03377",
    trade_off="No bubble in steady state; asynchronous updates and p−i versions of the weights on device i.",
    bubble="0 in steady state",
    memory="min(p−i, m), and p−i weight versions",
    order=one_f_one_b.order,
    default_overlap_p2p=True,
    synchronous=False,
    weight_versions=weight_versions,
    updates_every_microbatch=True,
)
