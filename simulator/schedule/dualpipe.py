"""DualPipe: microbatches enter at both ends, and forwards of one direction overlap backwards of the other."""

from __future__ import annotations

from simulator.schedule import dualpipev
from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule, both_directions, one_chunk
from simulator.schedule.phases import Phases


def order(p: int, m: int, v: int) -> list[Order]:
    """Each half of the devices runs DualPipeV's steps for p/2 devices and m/2 microbatches of each direction.

    Chunk 0 is the stage near this device's end of the pipeline; direction 1 enters at device p−1.
    """
    orders = []
    for i in range(p):
        from_end = min(i, p - 1 - i)
        direction = int(i >= p // 2)
        chunks = Phases((from_end, direction), (p - 1 - from_end, 1 - direction))
        orders.append(dualpipev.device_order(chunks, p // 2, m // 2, from_end))
    return orders


def _rule(p: int, m: int, v: int) -> str | None:
    if p % 2:
        return f"it needs an even number of devices, not {p}; use p = {p + 1} or dualpipev"
    if m % 2 or m < 2 * p:
        enough = max(2 * p, m + m % 2)
        return f"it needs an even number of microbatches, at least 2p = {2 * p}, not {m}; use m = {enough}"
    return one_chunk(p, m, v)


SCHEDULE = Schedule(
    name="dualpipe",
    reference="DeepSeek-AI 2024 (DeepSeek-V3), arXiv 2412.19437",
    trade_off="Hides all-to-alls behind the other direction's compute; two stages' parameters per device.",
    bubble="(p/2−1)(F&B + (B+W) − 3W) for F = B ≥ W",
    memory="p+1 stage-microbatches",
    order=order,
    placement=both_directions,
    rule=_rule,
    splits_backward=True,
    default_overlap_p2p=True,
    pairs=True,
    directions=2,
)
