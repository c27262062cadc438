"""Interleaved 1F1B: v chunks per device in turn, groups of g microbatches per chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial

from simulator.schedule.actions import Order
from simulator.schedule.alternation import alternate
from simulator.schedule.definition import Schedule, any_chunks
from simulator.schedule.notation import B, F


def group_size(p: int, m: int) -> int:
    """Microbatches that a chunk runs before the next chunk's turn: the smallest that Megatron accepts.

    A group below p leaves a dependency bubble, so g ≥ p and the last group, m mod g, is 0 or ≥ p. Where p
    divides m this is p; where PyTorch accepts m (⌊m/p⌋ divides m) it is PyTorch's m/⌊m/p⌋. With m < p there
    is one group of m.
    """
    return next((g for g in range(p, m + 1) if m % g == 0 or m % g >= p), m)


def turns(m: int, v: int, g: int) -> Iterator[tuple[int, int]]:
    """(chunk, microbatch) in forward order: group by group, inside a group chunk by chunk."""
    for first in range(0, m, g):
        for chunk in range(v):
            for k in range(first, min(first + g, m)):
                yield chunk, k


def warm_up(p: int, v: int, i: int, g: int, *, hop: int) -> int:
    """Forwards of device i before its first F–B turn; ``hop`` more for every device behind it."""
    return (v - 1) * g + hop * (p - 1 - i)


def order(p: int, m: int, v: int, *, group: int = 0, extra_warm_up: int = 0) -> list[Order]:
    """((v−1)g + 2(p−1−i))F, then FB in turn, then the backwards left; backward takes the chunks last first.

    Args:
        group: g, Megatron's ``microbatch_group_size_per_vp_stage``; 0 takes :func:`group_size`.
        extra_warm_up: 1 when Megatron overlaps MoE all-to-alls of one microbatch with compute of another.

    Raises:
        ValueError: ``group`` breaks Megatron's rule.
    """
    broken = _broken_group(group, p, m)
    if broken:
        raise ValueError(broken)
    g = group or group_size(p, m)
    forward = list(turns(m, v, g))
    return [
        alternate(
            [F(chunk * p + i, k) for chunk, k in forward],
            [B((v - 1 - chunk) * p + i, k) for chunk, k in forward],
            warm_up=warm_up(p, v, i, g, hop=2) + extra_warm_up,
        )
        for i in range(p)
    ]


def _broken_group(group: int, p: int, m: int) -> str | None:
    """Megatron's rule of groups, where one is given and breaks it."""
    if not group or (p <= group <= m and not 0 < m % group < p):
        return None
    return (
        f"microbatch group {group} must lie in [p = {p}, m = {m}] and leave a last group "
        f"(m mod g = {m % group}) of 0 or at least p; the smallest that fits is {group_size(p, m)}"
    )


SCHEDULE = Schedule(
    name="interleaved-1f1b",
    reference="Narayanan et al. 2021 (Megatron-LM), arXiv 2104.04473",
    trade_off="1/v of the bubble for v times the p2p traffic and (p−1)/(pv) more activations.",
    bubble="(p−1)(F+B+W)/v for m ≥ p",
    memory="min(2(p−i−1) + (v−1)g + 1, m·v) chunks, groups of g microbatches (p where p divides m)",
    order=order,
    rule=any_chunks,
    natural_v=2,
    default_overlap_p2p=True,
)


@lru_cache
def grouped(group: int) -> Schedule:
    """With groups of so many microbatches."""

    def rule(p: int, m: int, v: int) -> str | None:
        return _broken_group(group, p, m)

    return replace(SCHEDULE, order=partial(order, group=group), rule=rule)
