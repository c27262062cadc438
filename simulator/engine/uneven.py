"""Microbatches whose attention differs: a block, or its operators, at the load of one microbatch."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.engine.block import Block, Placed
from simulator.engine.costing import OperatorCosts, exposed
from simulator.graph.operators import Attention, Awaited
from simulator.partition.document_load import MicrobatchLoads
from simulator.partition.segment import COMPUTE, Segment, Step


def attends(step: Step) -> bool:
    """Whether a step is attention, a rank's own or that which it waits for."""
    op = step.op.work if isinstance(step.op, Awaited) else step.op
    return step.stream == COMPUTE and isinstance(op, Attention)


def attention_seconds(segments: Iterable[Segment], costs: OperatorCosts) -> float:
    """Of segments at the mean load."""
    return sum(costs.cost(step.op).seconds for segment in segments for step in segment.steps if attends(step))


def loaded(
    block: Block, segments: Iterable[Segment], costs: OperatorCosts, loads: MicrobatchLoads, microbatch: int
) -> Block:
    """The block of one microbatch. What the slowest replica has beyond the mean, the others wait for."""
    mean_s, load = attention_seconds(segments, costs), loads.of(microbatch)
    profile, waited = dict(block.profile), exposed(loads.axis)
    profile["attention"] = profile.get("attention", 0.0) + (load - loads.mean) * mean_s
    profile[waited] = profile.get(waited, 0.0) + (loads.mean - 1.0) * mean_s
    return block._replace(seconds=block.seconds + (load - 1.0) * mean_s, profile=profile)


def loaded_operators(
    placed: Iterable[Placed], segment: Segment, loads: MicrobatchLoads, microbatch: int
) -> list[Placed]:
    """The same of a segment's operators one by one."""
    names, load = {step.op.name for step in segment.steps if attends(step)}, loads.of(microbatch)
    return [
        Placed(stream, task._replace(seconds=task.seconds * load))
        if stream == COMPUTE and task.name in names
        else Placed(stream, task)
        for stream, task in placed
    ]
