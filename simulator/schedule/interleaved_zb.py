"""Interleaved zero bubble: ZB-H1 over v chunks per device."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.alternation import alternate
from simulator.schedule.definition import Schedule, any_chunks
from simulator.schedule.interleaved_1f1b import group_size, turns, warm_up
from simulator.schedule.notation import F, I, W


def order(p: int, m: int, v: int) -> list[Order]:
    """((v−1)g + p−1−i)F; then F I, and from turn i on F I W with W i chunks behind; last the i Ws left."""
    g = group_size(p, m)
    forward = list(turns(m, v, g))
    backward = [(v - 1 - chunk, k) for chunk, k in forward]
    return [
        alternate(
            [F(chunk * p + i, k) for chunk, k in forward],
            [I(chunk * p + i, k) for chunk, k in backward],
            warm_up=warm_up(p, v, i, g, hop=1),
            weights=[W(chunk * p + i, k) for chunk, k in backward],
            lag=i,
        )
        for i in range(p)
    ]


SCHEDULE = Schedule(
    name="interleaved-zb",
    reference="Qi et al. 2024, arXiv 2401.10241; PyTorch ScheduleInterleavedZeroBubble",
    trade_off="A third of interleaved 1F1B's bubble when F = B = W, less memory on the first devices.",
    bubble="(p−1)(F+B−W)/v for W ≤ F, B and m ≥ p",
    memory="min(v·p, m·v) chunks: vp−i whole and i held only for W",
    order=order,
    rule=any_chunks,
    natural_v=2,
    splits_backward=True,
    default_overlap_p2p=True,
)
