"""GPipe: all forwards, then all backwards."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule
from simulator.schedule.notation import B, F


def order(p: int, m: int, v: int) -> list[Order]:
    """mF, mB on every device."""
    return [[F(i, k) for k in range(m)] + [B(i, k) for k in range(m)] for i in range(p)]


SCHEDULE = Schedule(
    name="gpipe",
    reference="Huang et al. 2019, arXiv 1811.06965",
    trade_off="The simplest order, and every microbatch's activations are alive at once.",
    bubble="(p−1)(F+B+W)",
    memory="m",
    order=order,
)
