"""What a schedule costs on its own: step time, bubble and activations with given times of F, B and W."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule
from simulator.schedule.evaluate import Timeline, Times, evaluate, peak_live


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A schedule's cost, in the unit of the times it was given."""

    timeline: Timeline
    step_time: float  # makespan; asynchronous schedules: m microbatches in steady state
    bubble: float  # step time − m(F+B+W)
    peak_activations: list[int]  # live chunk-microbatches per device
    weight_versions: list[int]  # per device

    @property
    def bubble_fraction(self) -> float:
        """Share of the step that is bubble."""
        return self.bubble / self.step_time if self.step_time else 0.0


def assess(schedule: Schedule, p: int, m: int, v: int, times: Times) -> Assessment:
    """Evaluate a registered schedule.

    Raises:
        ValueError: the schedule is not defined for p, m, v.
    """
    orders = schedule.checked_order(p, m, v)
    found = assess_orders(orders, v, times)
    if schedule.synchronous:
        return found
    step_time = _steady_step_time(schedule, p, m, times)
    return Assessment(
        timeline=found.timeline,
        step_time=step_time,
        bubble=step_time - found.timeline.work,
        peak_activations=found.peak_activations,
        weight_versions=[schedule.weight_versions(p, i) for i in range(p)],
    )


def assess_orders(orders: Sequence[Order], v: int, times: Times) -> Assessment:
    """Evaluate one synchronous step of any orders.

    Raises:
        ValueError: the orders are not legal.
    """
    timeline = evaluate(orders, times, v)
    return Assessment(
        timeline=timeline,
        step_time=timeline.makespan,
        bubble=timeline.bubble,
        peak_activations=peak_live(orders),
        weight_versions=[1] * len(orders),
    )


def _steady_step_time(schedule: Schedule, p: int, m: int, times: Times) -> float:
    """Time that m more microbatches add to a run that never flushes.

    A round trip carries p microbatches, so the steady state repeats every p of them (or a divisor): compare
    two runs that are a common multiple of m and p apart, past the fill.
    """
    apart = lcm(m, p)
    fill = -(-4 * p // apart) * apart
    first, second = (evaluate(schedule.order(p, n, 1), times).makespan for n in (fill, fill + apart))
    return (second - first) * m / apart
