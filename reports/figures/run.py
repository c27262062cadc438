"""All figures of one run, by name."""

from __future__ import annotations

from matplotlib.figure import Figure

from reports.figures.breakdown import breakdown
from reports.figures.communication import communication
from reports.figures.memory import memory, memory_over_time
from reports.figures.pipeline import pipeline
from reports.figures.roofline import roofline
from reports.figures.topology import topology
from reports.figures.waterfall import waterfall
from reports.figures.what_if import what_if
from simulator.result import Result
from simulator.spec.run import RunSpec


def figures(result: Result, run: RunSpec) -> dict[str, Figure]:
    """Name → figure. Raises ValueError for a result without details."""
    other = {"what-if": what_if(result, run)} if result.what_if else {}
    return {
        "waterfall": waterfall(result),
        "breakdown": breakdown(result),
        "pipeline": pipeline(result),
        "memory": memory(result),
        "memory-over-time": memory_over_time(result),
        "communication": communication(result),
        "topology": topology(result, run.cluster),
        "roofline": roofline(result),
        **other,
    }
