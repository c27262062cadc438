"""Memory of a rank over a step: what never goes away, and what comes and goes with the actions."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.details import Work
from simulator.memory.activations import Passes, levels
from simulator.memory.report import StageMemory
from simulator.schedule.actions import Order


def memory_over_time(
    passes: Passes, stage: StageMemory, order: Order, work: Iterable[Work]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Times in seconds and the bytes alive from each on, of one pipeline device.

    While an action (or a pair) runs, it counts with the most it needs; afterwards with what it leaves.
    """
    spans: dict[tuple[str, int, int, int], tuple[float, float]] = {}
    for piece in work:
        key = (piece.kind, piece.stage, piece.microbatch, piece.direction)
        spans[key] = (spans.get(key, (piece.start_s, 0.0))[0], piece.end_s)
    course = list(levels(passes, order))
    resting = stage.peak_bytes - max((level.most + level.gradients for level in course), default=0.0)
    series = {0.0: resting}
    for action, _, most, alive, gradients in course:
        each = action.parts
        ran = [spans[one.kind.name, one.stage, one.microbatch, one.direction] for one in each]
        series[min(start for start, _ in ran)] = resting + most + gradients
        series[max(end for _, end in ran)] = resting + alive + gradients
    return tuple(series), tuple(series.values())
