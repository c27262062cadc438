"""Forward only: evaluation or inference of m microbatches."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule, any_chunks
from simulator.schedule.interleaved_1f1b import group_size, turns
from simulator.schedule.notation import F


def order(p: int, m: int, v: int) -> list[Order]:
    """mF per chunk, chunks taking turns as in interleaved 1F1B."""
    forward = list(turns(m, v, group_size(p, m)))
    return [[F(chunk * p + i, k) for chunk, k in forward] for i in range(p)]


SCHEDULE = Schedule(
    name="forward-only",
    reference="Megatron-LM forward_only",
    trade_off="Evaluation: no backward, so no activations are kept.",
    bubble="(p−1)F/v for m ≥ p",
    memory="1 chunk",
    order=order,
    rule=any_chunks,
    forward_only=True,
)
