"""Evaluates layouts, in whatever process it runs."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

from simulator.engine.replay import paused_collector
from simulator.shared import Shared
from simulator.simulation import Simulation
from simulator.spec.run import RunSpec
from simulator.sweep.choices import Constraint
from simulator.sweep.evaluation import NO_ROOM, Evaluation
from simulator.sweep.expression import ExpressionError
from simulator.sweep.space import Layout

COLLECTED_AFTER = 4096  # evaluations: what caches have dropped

_SHARED = Shared()  # of this process, which may be one of many workers
_DONE = count(1)


def evaluate_all(layouts: Sequence[Layout], after: Sequence[Constraint]) -> list[Evaluation]:
    """Evaluates layouts one after the other, in any process."""
    with paused_collector():  # once for all of them: caches are large, and scanning them takes long
        found = []
        for layout in layouts:
            found.append(evaluate(layout, after))
            old = next(_DONE) % COLLECTED_AFTER == 0
            if old:
                gc.unfreeze()
            gc.collect(2 if old else 0)  # its replay's cycles, and without looking through the caches
        return found


def evaluate(layout: Layout, after: Sequence[Constraint] = (), *, in_full: bool = False) -> Evaluation:
    """Simulates a layout that fits; ``in_full``: also one that does not.

    What the simulator refuses is an outcome, not an error.
    """
    try:
        simulation = Simulation(layout.run, _SHARED)
        memory = simulation.memory
        figures = _figures(simulation) if memory.fits or in_full else None
        unmet = _unmet(layout.run, figures, after) if figures and memory.fits else NO_ROOM
    except Exception as error:  # one layout must not end the other thousands; the message is kept and counted
        message = f"{type(error).__name__}: {error}"
        return Evaluation(number=layout.number, labels=layout.labels, status="failed", message=message)
    known = Evaluation(
        number=layout.number,
        labels=layout.labels,
        status="infeasible" if unmet else "ok",
        message=unmet,
        peak_bytes=memory.peak_bytes,
        capacity_bytes=memory.capacity_bytes,
    )
    if figures is None:
        return known
    return replace(
        known,
        step_time_s=figures["step_time_s"],
        tokens_per_s=figures["tokens_per_s"],
        mfu=figures["mfu"],
        bubble_fraction=figures["bubble_fraction"],
        breakdown_s=simulation.step.breakdown,
    )


def _figures(simulation: Simulation) -> dict[str, float]:
    """What constraints on results may name, as :class:`simulator.result.Result` has it."""
    step, memory = simulation.step, simulation.memory
    return {
        **simulation.rates._asdict(),
        "step_time_s": step.seconds,
        "bubble_fraction": step.breakdown.get("bubble", 0.0) / step.seconds,
        "peak_bytes": memory.peak_bytes,
        "capacity_bytes": memory.capacity_bytes,
    }


def _unmet(run: RunSpec, figures: Mapping[str, float], after: Sequence[Constraint]) -> str:
    """The first constraint that results break."""
    for constraint in after:
        try:
            met = constraint.met(run, figures)
        except ExpressionError as error:
            return f"{constraint.name}: {error}"
        if not met:
            return constraint.name
    return ""
