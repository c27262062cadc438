"""ZB-H2: more forwards first, so that no device idles between its first and its last action."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.alternation import alternate
from simulator.schedule.definition import Schedule
from simulator.schedule.notation import F, I, W


def order(p: int, m: int, v: int) -> list[Order]:
    """2(p−1−i)F; then F I, and from turn 2i on F I W with W 2i microbatches behind; last the 2i Ws left."""
    return [
        alternate(
            [F(i, k) for k in range(m)],
            [I(i, k) for k in range(m)],
            warm_up=2 * (p - 1 - i),
            weights=[W(i, k) for k in range(m)],
            lag=2 * i,
        )
        for i in range(p)
    ]


SCHEDULE = Schedule(
    name="zb-h2",
    reference="Qi et al. 2024 (Zero Bubble Pipeline Parallelism), arXiv 2401.10241",
    trade_off="No bubble when F = B = W and steps may interlock, for about twice 1F1B's activations.",
    bubble="(p−1)·max(F, B−F, F+B−2W); own span (p−1)·max(0, B−F, F+B−2W), both for m ≥ 2p−1",
    memory="min(2p−1, m): 2(p−i)−1 whole and 2i held only for W",
    order=order,
    splits_backward=True,
    default_overlap_p2p=True,
)
