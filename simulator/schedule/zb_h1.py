"""ZB-H1: 1F1B with the weight gradient held back on later devices, at 1F1B's memory."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.alternation import alternate
from simulator.schedule.definition import Schedule
from simulator.schedule.notation import F, I, W


def order(p: int, m: int, v: int) -> list[Order]:
    """(p−1−i)F; then F I, and from turn i on F I W with W i microbatches behind; last the i Ws left."""
    return [
        alternate(
            [F(i, k) for k in range(m)],
            [I(i, k) for k in range(m)],
            warm_up=p - 1 - i,
            weights=[W(i, k) for k in range(m)],
            lag=i,
        )
        for i in range(p)
    ]


SCHEDULE = Schedule(
    name="zb-h1",
    reference="Qi et al. 2024 (Zero Bubble Pipeline Parallelism), arXiv 2401.10241",
    trade_off="About a third of 1F1B's bubble at the memory of its first device; splits the backward.",
    bubble="(p−1)·max(F, B, F+B−W) for m ≥ p",
    memory="min(p, m): p−i whole and i held only for W",
    order=order,
    splits_backward=True,
    default_overlap_p2p=True,
)
