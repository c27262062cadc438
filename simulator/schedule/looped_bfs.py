"""Looped breadth-first: every chunk runs all microbatches before the next chunk starts."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule, any_chunks
from simulator.schedule.notation import B, F


def order(p: int, m: int, v: int) -> list[Order]:
    """Per chunk mF; then per chunk, last first, mB in reverse microbatch order."""
    return [
        [F(stage, k) for stage in range(i, p * v, p) for k in range(m)]
        + [B(stage, k) for stage in reversed(range(i, p * v, p)) for k in reversed(range(m))]
        for i in range(p)
    ]


SCHEDULE = Schedule(
    name="looped-bfs",
    reference="Lamy-Poirier 2022 (Breadth-First Pipeline Parallelism), arXiv 2211.05953",
    trade_off="1/v of the bubble, each chunk's parameters gathered once; all microbatches stay alive.",
    bubble="(p−1)(F+B+W)/v for m ≥ p",
    memory="m·v chunks",
    order=order,
    rule=any_chunks,
    natural_v=2,
    default_overlap_p2p=True,
)
