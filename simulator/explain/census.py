"""Which operators a step is made of, how often each runs, and how many of these runs repeat forward work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from simulator.graph.operators import Attention, Gemm, GroupedGemm, MemoryBound, Operator
from simulator.partition.plan import RunPlan


class Counted(NamedTuple):
    """A distinct operator of the layers; counts are means over GPUs, per step."""

    op: Operator
    runs: float
    repeats: float  # of the runs, those in which a backward pass recomputes activations


def census(plan: RunPlan, devices: int) -> Iterator[Counted]:
    """The distinct operators of all virtual stages of a pipeline of so many devices, first seen first."""
    layers = {id(layer): layer for chunk in plan.chunks for layer in chunk.layers}
    copies = Counter(id(layer) for chunk in plan.chunks for layer in chunk.layers)
    runs, repeats = Counter[Operator](), Counter[Operator]()
    for key, layer in layers.items():
        forward = {step.op for step in layer.forward.steps}
        for step in layer.forward.steps:
            runs[step.op] += copies[key]
        for step in layer.backward.steps:
            runs[step.op] += copies[key]
            if _is_forward(step.op, forward):
                repeats[step.op] += copies[key]
    share = plan.microbatches / devices
    for op, count in runs.items():
        yield Counted(op, count * share, repeats[op] * share)


def _is_forward(op: Operator, forward: set[Operator]) -> bool:
    """Whether a kernel of a backward pass is forward work; messages of both passes look alike."""
    match op:
        case Gemm() | GroupedGemm():
            return op.role == "forward"
        case Attention():
            return op.direction == "forward"
        case MemoryBound():
            return op in forward
    return False
