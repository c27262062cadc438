"""From the last reduced gradient to updated parameters, as tasks of one device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from simulator.engine.block import Placed
from simulator.engine.costing import OperatorCosts, exposed
from simulator.engine.data_traffic import DP, OPTIMIZER, collective
from simulator.engine.host_update import update_on_host
from simulator.engine.tasks import COMPUTE, Meeting, Task, Token
from simulator.graph.operators import Axis, Collective
from simulator.partition.optimizer import Matrix
from simulator.partition.plan import RunPlan

WORLD, PAIR = "world", "pair"  # meetings of all devices, and of two of them


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
    if plan.tensor.splits_tokens and plan.tensor.size > 1:
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
    norm: Token = ("norm", *held)
    placed.append(Placed(COMPUTE, Task("gradient norm", OPTIMIZER, norm_s, (), norm, everyone)))
    placed += _whole_matrices(plan, held, costs)
    placed.append(Placed(COMPUTE, Task("optimizer step", OPTIMIZER, after)))
    if plan.data.offload.optimizer != "device":
        placed += update_on_host(plan, held, norm, costs)
    return placed


def _whole_matrices(plan: RunPlan, held: list[int], costs: OperatorCosts) -> Iterator[Placed]:
    """What a matrix optimizer does before its element-wise step."""
    layers = [layer for stage in held for layer in plan.chunks[stage].layers]
    dense = tuple(matrix for layer in layers for matrix in layer.matrices)
    experts = tuple(matrix for layer in layers for matrix in layer.expert_matrices)
    groups: tuple[tuple[tuple[Matrix, ...], Axis], ...] = ((dense, "dp_cp"), (experts, "edp"))
    for matrices, axis in groups:
        for op in plan.data.whole_matrices(matrices, axis):
            if isinstance(op, Collective):
                yield collective(op, COMPUTE, (), (op.name, axis), costs)
            else:
                yield Placed(COMPUTE, Task(op.name, OPTIMIZER, costs.cost(op).seconds))
