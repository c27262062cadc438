"""Repeating patterns of two chunks in a V, lean in memory or short in time (Qi et al., arXiv 2405.15362).

With F = B = W a device does six unit actions per microbatch, so a pattern that repeats every six units
without two actions in one slot keeps every device busy, and the time from a forward to its backward is
the memory it needs. The leanest pattern is V-Min, with about p/3 + 1 microbatches per device; with more
memory the ends become shorter.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple

from simulator.schedule.actions import Order
from simulator.schedule.notation import F, I, W

PERIOD = 6


class Starts(NamedTuple):
    """When device i starts the actions of microbatch 0 on stage i (down) and stage 2p−1−i (up)."""

    down_forward: int
    up_forward: int
    up_backward: int
    down_backward: int


@lru_cache(maxsize=64)
def blocks(p: int) -> tuple[tuple[Starts, ...], ...]:
    """Patterns for p devices, leanest first; of those with one memory, the one a microbatch passes fastest.

    From stage to stage an action starts 1 to 3 units after the one before; at the three turns (last device,
    loss, last device again) 1 to 6 units after it.
    """
    fastest: dict[int, tuple[int, tuple[Starts, ...]]] = {}
    for steps, turns in product(product((1, 2, 3), repeat=4), product(range(1, 7), repeat=3)):
        pattern = _pattern(p, steps, turns)
        if pattern is None:
            continue
        life = max(s.down_backward - s.down_forward + s.up_backward - s.up_forward for s in pattern)
        passage = pattern[0].down_backward
        if life not in fastest or passage < fastest[life][0]:
            fastest[life] = passage, pattern
    return tuple(pattern for _, (_, pattern) in sorted(fastest.items()))


def _pattern(p: int, steps: tuple[int, ...], turns: tuple[int, ...]) -> tuple[Starts, ...] | None:
    """Starts on every device, or None where two actions share a slot."""
    down_forward, up_forward, up_backward, down_backward = steps
    at_turn = (p - 1) * down_forward + turns[0]
    at_loss = at_turn + (p - 1) * up_forward + turns[1]
    back_at_turn = at_loss + (p - 1) * up_backward + turns[2]
    pattern = []
    for i in range(p):
        from_turn = p - 1 - i
        starts = Starts(
            i * down_forward,
            at_turn + from_turn * up_forward,
            at_loss + i * up_backward,
            back_at_turn + from_turn * down_backward,
        )
        if len({start % PERIOD for start in starts}) < len(starts):
            return None
        pattern.append(starts)
    return tuple(pattern)


def repeat(block: tuple[Starts, ...], m: int) -> list[Order]:
    """m microbatches of a pattern; a weight gradient takes the first free slot after its input gradient."""
    p = len(block)
    orders = []
    for i, starts in enumerate(block):
        up = 2 * p - 1 - i
        taken = {start % PERIOD for start in starts}
        timed = [(starts.down_forward, F, i), (starts.up_forward, F, up)]
        for start, stage in sorted([(starts.up_backward, up), (starts.down_backward, i)]):
            free = next(t for t in range(start + 1, start + PERIOD + 1) if t % PERIOD not in taken)
            taken.add(free % PERIOD)
            timed += [(start, I, stage), (free, W, stage)]
        actions = [(start + PERIOD * k, act(stage, k)) for k in range(m) for start, act, stage in timed]
        orders.append([action for _, action in sorted(actions)])
    return orders
