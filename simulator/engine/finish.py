"""From the last reduced gradient to updated parameters, as tasks of one device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simulator.engine.block import Placed
from simulator.engine.costing import PP, exposed
from simulator.engine.data_traffic import OPTIMIZER
from simulator.engine.data_work import DP, UpdateWork
from simulator.engine.device_costs import DeviceCosts
from simulator.engine.host_update import update_on_host
from simulator.engine.tasks import COMPUTE, Meeting, Task, Token
from simulator.graph.operators import Axis, Collective
from simulator.partition.optimizer import Matrix
from simulator.partition.plan import RunPlan

WORLD, PAIR = "world", "pair"  # meetings of all devices, and of two of them


def finish_step(
    plan: RunPlan,
    held: Sequence[int],
    reduced: tuple[Token, ...],
    work: UpdateWork,
    costs: DeviceCosts,
    *,
    tied_s: float | None,
    norm: Sequence[Placed],
) -> list[Placed]:
    """From the last reduced gradient to updated parameters.

    Args:
        reduced: tokens of the reductions to wait for.
        held: stages.
        work: of these stages.
        tied_s: time to sum the tied embedding's gradients with the other end of the pipeline, ``None``
        elsewhere.
        norm: what a device does about the gradient's norm of all others; a host's step follows the first.
    """
    placed = [Placed(COMPUTE, Task("gradients ready", exposed(DP), 0.0, reduced))]
    if work.summed is not None:
        placed.append(costs.collective(work.summed, COMPUTE, (), ("norm gradients",)))
    if tied_s is not None:
        meeting = Meeting((PAIR, "tied embedding"), 2)
        placed.append(Placed(COMPUTE, Task("tied embedding", PP, tied_s, meeting=meeting)))
    placed.append(Placed(COMPUTE, Task("local gradient norm", OPTIMIZER, work.norm_s)))
    placed += norm
    if plan.data.optimizer.takes_matrices:
        placed += _whole_matrices(plan, held, costs)
    placed.append(Placed(COMPUTE, Task("optimizer step", OPTIMIZER, work.step_s)))
    if plan.data.offload.optimizer != "device":
        placed += update_on_host(plan, held, norm[0].task.signal, costs.of_any)
    return placed


def norm_of_all(seconds: float, devices: int, held: Sequence[int]) -> list[Placed]:
    """The norm's scalar all-reduce over the world, at which all devices meet."""
    everyone = Meeting((WORLD, "norm"), devices)
    return [Placed(COMPUTE, Task("gradient norm", OPTIMIZER, seconds, (), ("norm", *held), everyone))]


def norm_so_far(message_s: float, device: int, devices: int, update: int) -> list[Placed]:
    """The norm of the devices before this one, and its own on the way to the next.

    The optimizer goes on with it, and is corrected in the rare case that the whole norm asks for clipping
    (post-validation: Qi 2024, section 4).
    """
    own: Token = ("norm", update, device)
    before = (("norm so far", update, device),) if device else ()
    placed = [Placed(COMPUTE, Task("gradient norm", OPTIMIZER, 0.0, before, own))]
    if device + 1 < devices:
        there = ("norm so far", update, device + 1)
        placed.append(Placed("send norms", Task("send", PP, message_s, (own,), there)))
    return placed


def _whole_matrices(plan: RunPlan, held: Sequence[int], costs: DeviceCosts) -> Iterator[Placed]:
    """What a matrix optimizer does before its element-wise step."""
    layers = [layer for stage in held for layer in plan.chunks[stage].layers]
    dense = tuple(matrix for layer in layers for matrix in layer.matrices)
    experts = tuple(matrix for layer in layers for matrix in layer.expert_matrices)
    groups: tuple[tuple[tuple[Matrix, ...], Axis], ...] = ((dense, "dp_cp"), (experts, "edp"))
    for matrices, axis in groups:
        for op in plan.data.whole_matrices(matrices, axis):
            if isinstance(op, Collective):
                yield costs.collective(op, COMPUTE, (), (op.name, axis))
            else:
                yield Placed(COMPUTE, Task(op.name, OPTIMIZER, costs.of_any.cost(op).seconds))
