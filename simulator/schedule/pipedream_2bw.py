"""PipeDream-2BW: 1F1B that never flushes, accumulating m ≥ p microbatches, with two weight versions."""

from __future__ import annotations

from simulator.schedule import one_f_one_b
from simulator.schedule.definition import Schedule, one_chunk


def weight_versions(p: int, i: int) -> int:
    """Double buffering: with m ≥ p, microbatches in flight belong to at most two generations of weights."""
    return min(2, p)


def _rule(p: int, m: int, v: int) -> str | None:
    if m < p:
        return f"two weight versions need m ≥ p = {p} microbatches, not {m}; raise m or use pipedream"
    return one_chunk(p, m, v)


SCHEDULE = Schedule(
    name="pipedream-2bw",
    reference="Narayanan et al. 2021 (Memory-Efficient Pipeline-Parallel DNN Training), arXiv 2006.09503",
    trade_off="No bubble in steady state with two weight versions; gradients are one step stale.",
    bubble="0 in steady state",
    memory="min(p−i, m), and 2 weight versions",
    order=one_f_one_b.order,
    rule=_rule,
    default_overlap_p2p=True,
    synchronous=False,
    weight_versions=weight_versions,
)
