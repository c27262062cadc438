"""V-Min: the leanest repeating pattern of two chunks in a V."""

from __future__ import annotations

from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule, two_chunks, v_shape
from simulator.schedule.v_blocks import blocks, repeat


def order(p: int, m: int, v: int) -> list[Order]:
    """F and B pass from stage to stage without waiting; W takes the slots between."""
    return repeat(blocks(p)[0], m)


SCHEDULE = Schedule(
    name="v-min",
    reference="Qi et al. 2024 (Pipeline Parallelism with Controllable Memory), arXiv 2405.15362",
    trade_off="A third of 1F1B's activations and two thirds of its bubble; suits F = B = W only.",
    bubble="(2p − 5/2)F, with 3 | p (2p − 3/2)F, for F = B = W and p > 2",
    memory="about p/3 + 1 microbatches",
    order=order,
    placement=v_shape,
    rule=two_chunks,
    natural_v=2,
    splits_backward=True,
    default_overlap_p2p=True,
)
