"""One layout evaluated, and the function that does it in whatever process it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from simulator.result import Result
from simulator.simulate import simulate
from simulator.spec.run import RunSpec
from simulator.sweep.expression import ExpressionError
from simulator.sweep.space import Constraint, Layout

Status: TypeAlias = Literal["ok", "infeasible", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What became of a layout.

    ``infeasible``: legal, but it does not fit or breaks a constraint on results; ``failed``: the simulator
    could not run it. ``message`` says why; figures that were not computed are 0.
    """

    number: int
    labels: tuple[Any, ...]
    status: Status
    message: str = ""
    step_time_s: float = 0.0
    tokens_per_s: float = 0.0
    mfu: float = 0.0
    bubble_fraction: float = 0.0
    peak_bytes: float = 0.0
    capacity_bytes: float = 0.0
    breakdown_s: Mapping[str, float] = field(default_factory=dict)


def evaluate_all(layouts: Sequence[Layout], after: Sequence[Constraint]) -> list[Evaluation]:
    """Evaluates layouts one after the other, in any process."""
    return [evaluate(layout, after) for layout in layouts]


def evaluate(layout: Layout, after: Sequence[Constraint]) -> Evaluation:
    """Simulates a layout. What the simulator refuses is an outcome, not an error."""
    try:
        result = simulate(layout.run)
    except Exception as error:  # one layout must not end the other thousands; the message is kept and counted
        message = f"{type(error).__name__}: {error}"
        return Evaluation(number=layout.number, labels=layout.labels, status="failed", message=message)
    unmet = _unmet(layout.run, result, after)
    return Evaluation(
        number=layout.number,
        labels=layout.labels,
        status="infeasible" if unmet else "ok",
        message=unmet,
        step_time_s=result.step_time_s,
        tokens_per_s=result.tokens_per_s,
        mfu=result.mfu,
        bubble_fraction=result.bubble_fraction,
        peak_bytes=result.memory["peak_bytes"],
        capacity_bytes=result.memory["capacity_bytes"],
        breakdown_s=dict(result.breakdown_s),
    )


def _unmet(run: RunSpec, result: Result, after: Sequence[Constraint]) -> str:
    """Why a result will not do; empty where it will."""
    if not result.memory["fits"]:
        return "memory"
    values = {**result.to_dict(), **result.memory}
    for constraint in after:
        try:
            met = constraint.met(run, values)
        except ExpressionError as error:
            return f"{constraint.name}: {error}"
        if not met:
            return constraint.name
    return ""
