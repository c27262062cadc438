"""Data-parallel traffic and the optimizer as tasks, around the schedule of one device.

The step begins where the last optimizer step ended: updated parameters are gathered first (ZeRO-1), each
bucket before the forward that needs it. Gradients are reduced when the last microbatch's backward has
completed a bucket, or all of them at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulator.engine.block import Placed
from simulator.engine.costing import OperatorCosts, exposed
from simulator.engine.tasks import COMPUTE, Meeting, Task, Token
from simulator.graph.operators import Collective
from simulator.partition.data import Bucket
from simulator.partition.plan import RunPlan

DP = "dp"
STREAMS = {"dp_cp": DP, "edp": "edp"}  # the groups' communicators run beside each other
OPTIMIZER = "optimizer"
WORLD, PAIR = "world", "pair"  # meetings of all devices, and of two of them


def parameters_token(stage: int, bucket: Bucket) -> Token:
    """Signalled when a bucket's updated parameters have been gathered."""
    return ("parameters", bucket.axis, stage, bucket.first_layer)


def hook_token(stage: int, bucket: Bucket) -> Token:
    """Signalled when the first forward of a bucket's layers begins."""
    return ("hook", bucket.axis, stage, bucket.first_layer)


def collective(
    op: Collective, stream: str, waits: tuple[Token, ...], signal: Token, costs: OperatorCosts
) -> Placed:
    """A collective as a meeting of its group."""
    cost = costs.cost(op)
    return Placed(
        stream, Task(op.name, cost.category, cost.seconds, waits, signal, Meeting((op.axis, signal), 0))
    )


def gather_parameters(
    plan: RunPlan, stages: Sequence[int], costs: OperatorCosts, *, overlap: bool
) -> list[Placed]:
    """All-gathers of updated parameters, in the order in which forwards need them.

    Overlapped, a bucket's gather is issued when the forward of the bucket before it in the same group begins
    (Megatron-LM's hooks); otherwise nothing starts before all have come.
    """
    placed: list[Placed] = []
    hooks: dict[str, tuple[Token, ...]] = {}
    for stage in stages:
        for bucket in reversed(plan.chunks[stage].buckets):
            op = plan.data.gather_parameters(bucket, f"stage {stage}")
            if op is None:
                continue
            waits = hooks.get(bucket.axis, ()) if overlap else ()
            placed.append(collective(op, STREAMS[bucket.axis], waits, parameters_token(stage, bucket), costs))
            hooks[bucket.axis] = (hook_token(stage, bucket),)
    if placed and not overlap:
        ready = tuple(task.signal for _, task in placed)
        placed.append(Placed(COMPUTE, Task("parameters ready", exposed(DP), 0.0, ready)))
    return placed


def reduce_bucket(
    plan: RunPlan, stage: int, bucket: Bucket, costs: OperatorCosts
) -> tuple[list[Placed], Token | None]:
    """Scales a bucket's gradients and starts their reduction; also the token of its end."""
    op = plan.data.reduce_gradients(bucket, f"stage {stage}")
    if op is None:
        return [], None
    place = (bucket.axis, stage, bucket.first_layer)
    ready, reduced = ("gradients", *place), ("reduced", *place)
    scaling = costs.total(plan.data.before_reduction(bucket.parameters))
    return [
        Placed(COMPUTE, Task("scale gradients", OPTIMIZER, scaling, signal=ready)),
        collective(op, STREAMS[bucket.axis], (ready,), reduced, costs),
    ], reduced


def finish_step(
    plan: RunPlan,
    stages: Iterable[int],
    reduced: tuple[Token, ...],
    costs: OperatorCosts,
    *,
    tied_s: float | None,
    norm_s: float,
    devices: int,
) -> list[Placed]:
    """From the last reduced gradient to updated parameters.

    Args:
        reduced: tokens of the reductions to wait for.
        tied_s: time to sum the tied embedding's gradients with the other end of the pipeline, ``None``
        elsewhere.
        norm_s: time of the scalar all-reduce of the gradient norm, at which all ``devices`` meet.
    """
    held = list(stages)
    parameters = sum(plan.chunks[stage].parameters for stage in held)
    placed = [Placed(COMPUTE, Task("gradients ready", exposed(DP), 0.0, reduced))]
    replicated = sum(layer.replicated_parameters for stage in held for layer in plan.chunks[stage].layers)
    if plan.tensor.sequence and plan.tensor.size > 1:
        op = Collective(
            name="norm_gradients", kind="all_reduce", axis="tp", size_bytes=replicated * plan.data.grad_bytes
        )
        placed.append(collective(op, COMPUTE, (), ("norm gradients",), costs))
    if tied_s is not None:
        meeting = Meeting((PAIR, "tied embedding"), 2)
        placed.append(Placed(COMPUTE, Task("tied embedding", exposed("pp"), tied_s, meeting=meeting)))
    shard = plan.data.shard(parameters, sum(plan.chunks[stage].expert_parameters for stage in held))
    before = costs.total(plan.data.before_norm(shard))
    after = costs.total(plan.data.after_norm(shard, parameters))
    placed.append(Placed(COMPUTE, Task("local gradient norm", OPTIMIZER, before)))
    everyone = Meeting((WORLD, "norm"), devices)
    placed.append(Placed(COMPUTE, Task("gradient norm", OPTIMIZER, norm_s, meeting=everyone)))
    placed.append(Placed(COMPUTE, Task("optimizer step", OPTIMIZER, after)))
    return placed
