"""Memory of a rank over a step: what never goes away, and activations that come and go with the actions."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from simulator.details import Work
from simulator.memory.report import StageMemory
from simulator.partition.plan import RunPlan


def memory_over_time(
    plan: RunPlan, stage: StageMemory, work: Iterable[Work]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Times in seconds and the bytes alive from each on, of one pipeline device.

    A forward's saved activations count from its start, and go at the end of the backward (or weight
    gradient) that uses them last, as in :mod:`simulator.memory.report`; while a backward runs, so does what
    its layers compute again.
    """
    changes: list[tuple[float, float]] = []
    for (kind, index, _, _), pieces in _actions(work):
        chunk = plan.chunks[index]
        start, end = pieces[0].start_s, pieces[-1].end_s
        if kind == "F":
            changes.append((start, chunk.saved_bytes))
            continue
        working = max((layer.working_bytes for layer in chunk.layers), default=0.0)
        changes += [(start, working), (end, -working)]
        if kind != "I":
            changes.append((end, -chunk.saved_bytes))
    alive = stage.peak_bytes - stage.activations
    times, values = [0.0], [alive]
    for time, group in groupby(sorted(changes), key=lambda change: change[0]):
        alive += sum(change for _, change in group)
        if time == times[-1]:
            values[-1] = alive
        else:
            times.append(time)
            values.append(alive)
    return tuple(times), tuple(values)


def _actions(work: Iterable[Work]) -> Iterable[tuple[tuple[str, int, int, int], list[Work]]]:
    """The pieces of each action together."""
    found: dict[tuple[str, int, int, int], list[Work]] = {}
    for piece in work:
        key = (piece.kind, piece.stage, piece.microbatch, piece.direction)
        found.setdefault(key, []).append(piece)
    return found.items()
