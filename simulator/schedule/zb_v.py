"""ZB-V: two chunks per device in a V, so that every device holds the same activations."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule, two_chunks, v_shape
from simulator.schedule.phases import Phases


def order(p: int, m: int, v: int) -> list[Order]:
    """Laid out for at least 2p−1 microbatches; with fewer, the actions of the others are left out."""
    n = max(m, 2 * p - 1)
    return [[a for a in device_order(p, n, i) if a.microbatch < m] for i in range(p)]


def device_order(p: int, n: int, i: int) -> Order:
    """Chunk 0 is stage i on the way down, chunk 1 stage 2p−1−i on the way up."""
    device = Phases((i, 0), (2 * p - 1 - i, 0))
    # warm-up: fill the way down, then both ways, then turn around
    device.run(2 * (p - i) - 1, "F0")
    device.run(i, "F1 F0")
    device.run(p - i, "F1 I1 W1")
    # steady
    device.run(n - 2 * p + 1 + i, "F0 I0 W0 F1 I1 W1")
    device.run(p - 1 - i, "I0 W0 F1 I1 W1")
    # cool-down: input gradients first, the weight gradients fill the gaps
    device.run(i, "I0 I1")
    device.run(p - i, "I0 W0")
    device.run(i, "W1")
    device.run(i, "W0")
    return device.order


SCHEDULE = Schedule(
    name="zb-v",
    reference="Qi et al. 2024, arXiv 2401.10241; PyTorch ScheduleZBVZeroBubble",
    trade_off="ZB-H2's gain at 1F1B's memory, the same on every device; twice the p2p traffic.",
    bubble="own span (p−1)(B−W), in all (p−1)·max(B/2, B−W), for B ≥ F ≥ W and m ≥ 2p−1",
    memory="min(2p, 2m) chunks = p microbatches",
    order=order,
    placement=v_shape,
    rule=two_chunks,
    natural_v=2,
    splits_backward=True,
    default_overlap_p2p=True,
)
