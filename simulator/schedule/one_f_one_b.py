"""1F1B (PipeDream-Flush): backward as soon as possible, so at most p microbatches are alive."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.alternation import alternate
from simulator.schedule.definition import Schedule
from simulator.schedule.notation import B, F


def order(p: int, m: int, v: int) -> list[Order]:
    """(p−1−i)F, then FB in turn, then the backwards left."""
    return [
        alternate([F(i, k) for k in range(m)], [B(i, k) for k in range(m)], warm_up=p - 1 - i)
        for i in range(p)
    ]


SCHEDULE = Schedule(
    name="1f1b",
    reference="Narayanan et al. 2021 (PipeDream-Flush), arXiv 2006.09503",
    trade_off="GPipe's bubble with the activations of at most p microbatches instead of m.",
    bubble="(p−1)(F+B+W)",
    memory="min(p−i, m)",
    order=order,
)
