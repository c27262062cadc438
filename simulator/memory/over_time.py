"""Memory of a rank over a step: what never goes away, and activations that come and go with the actions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from simulator.details import Work
from simulator.memory.activations import CHANGES, Passes
from simulator.memory.report import StageMemory
from simulator.schedule.actions import Kind

Span: TypeAlias = tuple[float, float]


def memory_over_time(
    passes: Passes, stage: StageMemory, work: Iterable[Work]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Times in seconds and the bytes alive from each on, of one pipeline device.

    While an action runs, it counts with the most it needs; afterwards with what it leaves. Actions that run
    beside each other count one after the other, as in :func:`simulator.memory.activations.peak_activations`.
    """
    alive = stage.peak_bytes - stage.activations
    series = {0.0: alive}
    for (start, end), kinds in _actions(work).items():
        most = alive
        for kind, index in kinds:
            rise, left = CHANGES[kind](passes.chunk(index))
            most = max(most, alive + rise)
            alive += left
        series[start] = most
        series[end] = alive
    return tuple(series), tuple(series.values())


def _actions(work: Iterable[Work]) -> dict[Span, list[tuple[Kind, int]]]:
    """Kind and virtual stage of what ran, by the time from its first piece to its last, in order of time."""
    spans: dict[tuple[str, int, int, int], Span] = {}
    for piece in work:
        key = (piece.kind, piece.stage, piece.microbatch, piece.direction)
        first, _ = spans.get(key, (piece.start_s, 0.0))
        spans[key] = (first, piece.end_s)
    found: dict[Span, list[tuple[Kind, int]]] = {}
    for (kind, index, _, _), span in sorted(spans.items(), key=lambda item: item[1]):
        found.setdefault(span, []).append((Kind[kind], index))
    return found
