"""DualPipeV: DualPipe cut in half, a V of two chunks per device whose forwards and backwards overlap."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule, two_chunks, v_shape
from simulator.schedule.phases import Phases


def order(p: int, m: int, v: int) -> list[Order]:
    """Chunk 0 is stage i on the way down, chunk 1 stage 2p−1−i on the way up."""
    return [device_order(Phases((i, 0), (2 * p - 1 - i, 0)), p, m, i) for i in range(p)]


def device_order(device: Phases, p: int, m: int, i: int) -> Order:
    """The eight steps of DualPipe; the second half of step 6 leaves its weight gradients for 7 and 8."""
    device.run(2 * (p - 1 - i), "F0")  # 1: nF0
    device.run(i + 1, "F0 F1")  # 2: nF0F1
    device.run(p - 1 - i, "I1 W F1")  # 3: nB1W1F1
    if i == p - 1:  # 4: n(F0&B1)(F1&B0); at the turn the first pair is taken apart, which shortens the bubble
        device.run(1, "F0 B1 F1&B0")
    else:
        device.run(1, "F0&B1 F1&B0")
    device.run(m - 2 * p + i, "F0&B1 F1&B0")
    device.run(p - 1 - i, "B1 F1&B0")  # 5: nB1(F1&B0)
    backwards = ["B1", "B0"] * (i + 1)  # 6: nB1B0
    device.run(1, " ".join(backwards[: i + 1]))
    device.run(1, " ".join(backwards[i + 1 :]).replace("B", "I"))
    device.run(p - 1 - i, "W I0")  # 7: nWB0
    device.run(i + 1, "W")  # 8: nW
    return device.order


def _rule(p: int, m: int, v: int) -> str | None:
    if m < 2 * p:
        return f"it needs at least 2p = {2 * p} microbatches, not {m}; raise m or use zb-v"
    return two_chunks(p, m, v)


SCHEDULE = Schedule(
    name="dualpipev",
    reference="DeepSeek 2025, github.com/deepseek-ai/DualPipe (after the cut-in-half idea of Qi et al.)",
    trade_off="DualPipe's hidden all-to-alls without a second copy of the parameters.",
    bubble="(p−1)(F&B + (B+W) − 3W)/2 for F = B ≥ W",
    memory="2p+1 chunks",
    order=order,
    placement=v_shape,
    rule=_rule,
    natural_v=2,
    splits_backward=True,
    default_overlap_p2p=True,
    pairs=True,
)
