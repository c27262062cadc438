"""An optimizer step on the host, bucket by bucket: reads, updates, writes and copies beside each other."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.engine.block import Placed
from simulator.engine.costing import OperatorCosts
from simulator.engine.data_traffic import OPTIMIZER, chain
from simulator.engine.tasks import COMPUTE, Task, Token
from simulator.partition.plan import RunPlan


def update_on_host(
    plan: RunPlan, stages: Iterable[int], after: Token, costs: OperatorCosts
) -> Iterable[Placed]:
    """The step of all buckets from ``after`` on, and the wait for the last of it."""
    ends: tuple[Token, ...] = ()
    for stage in stages:
        for bucket in plan.chunks[stage].buckets:
            place = ("update", stage, bucket.axis, bucket.first_layer)
            placed, done = chain(plan.data.update_on_host(bucket), (after,), place, costs)
            yield from placed
            ends += done
    yield Placed(COMPUTE, Task("updated on host", OPTIMIZER, 0.0, ends))
