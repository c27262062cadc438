"""Which algorithm and protocol the collectives of a step run with: the fastest that their groups allow."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.engine.costing import OperatorCosts
from simulator.explain.census import Counted
from simulator.graph.operators import Collective
from simulator.partition.plan import RunPlan


def algorithms(operators: Iterable[Counted], plan: RunPlan, costs: OperatorCosts) -> list[str]:
    """A line per axis and collective, for its largest message: ``tp all-gather: ring, LL128``.

    ``operators`` are those of the layers; data parallelism's are added.
    """
    largest: dict[tuple[str, str], Collective] = {}
    for op in (*(counted.op for counted in operators), *_of_data(plan)):
        if isinstance(op, Collective):
            known = largest.get((op.axis, op.kind))
            if known is None or op.size_bytes > known.size_bytes:
                largest[op.axis, op.kind] = op
    return [
        f"{axis} {kind.replace('_', '-')}: {estimate.algorithm}, {estimate.protocol}"
        for (axis, kind), op in largest.items()
        if (estimate := costs.transfer(op)).seconds
    ]


def _of_data(plan: RunPlan) -> Iterable[Collective]:
    """Gathers and reductions of each different bucket."""
    buckets = (bucket for chunk in plan.chunks for bucket in chunk.buckets)
    for bucket in {(b.axis, b.parameters, b.gathered_bytes): b for b in buckets}.values():
        gather = plan.data.gather_parameters(bucket, "")
        if gather is not None:
            yield gather
        yield from plan.data.reduce_gradients(bucket, "")
