"""The outcome of a sweep for other programs. Keys are stable."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from simulator.sweep.compare import differences
from simulator.sweep.evaluation import Evaluation
from simulator.sweep.search import Outcome


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """``best`` (layout and ``step_time_s``; null where nothing is feasible) and the counts.

    Also the layout that was asked for, as ``explained``, with its ``slower_by_s`` by cause.
    """
    best = outcome.best
    found = outcome.explained
    extra: dict[str, Any] = {}
    if found is not None:
        extra["explained"] = {
            **evaluation_json(outcome, found), "status": found.status, "message": found.message,
        }  # fmt: skip
        if best is not None and found.step_time_s:
            extra["explained"]["slower_by_s"] = dict(differences(found, best))
    return {
        "sweep": outcome.sweep.name,
        "objective": outcome.sweep.settings.objective,
        "search": outcome.sweep.settings.search,
        "best": None if best is None else evaluation_json(outcome, best),
        "combinations": outcome.census.combinations,
        "legal": outcome.census.legal,
        "evaluated": outcome.evaluated,
        "evaluated_total": outcome.evaluated_total,
        "illegal": dict(outcome.census.illegal),
        "infeasible": sum(outcome.infeasible.values()),
        "failed": sum(outcome.failed.values()),
        "complete": outcome.complete,
        **extra,
    }


def evaluation_json(outcome: Outcome, evaluation: Evaluation) -> dict[str, Any]:
    """One evaluation, its settings by key path, and what it costs."""
    axes = outcome.sweep.space.axes
    run = outcome.layouts[evaluation.number].run
    settings = {axis.key: value for axis, value in zip(axes, evaluation.labels, strict=True)}
    p = run.parallelism
    layout = {
        "gpus": run.gpus,
        "tp": p.tp,
        "pp": p.pp,
        "vp": p.vp,
        "cp": p.cp,
        "ep": p.ep,
        "etp": p.etp or p.tp,
    }
    return {
        "id": evaluation.number,
        "layout": {**layout, "dp": run.dp, **settings},
        "step_time_s": evaluation.step_time_s,
        "tokens_per_s": evaluation.tokens_per_s,
        "mfu": evaluation.mfu,
        "bubble_fraction": evaluation.bubble_fraction,
        "memory": {"peak_bytes": evaluation.peak_bytes, "capacity_bytes": evaluation.capacity_bytes},
        "breakdown_s": dict(evaluation.breakdown_s),
        "cost": asdict(outcome.sweep.objective.spending(run, evaluation.step_time_s)),
    }
