"""Peak memory of every pipeline device, from the parameters it holds and the activations its schedule keeps
alive.

Counted: weights, main gradients, optimizer state, saved activations, what one layer's backward needs while it
runs, and messages in flight. Not counted yet: the allocator's fragmentation, workspaces, the CUDA context and
NCCL's buffers (a few GB together).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simulator.memory.shards import gradient_bytes, weight_bytes
from simulator.partition.plan import ChunkShare, RunPlan
from simulator.schedule.actions import Action, Kind, Order


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Bytes on one rank of a pipeline device at its peak."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float

    @property
    def peak_bytes(self) -> float:
        """Everything together."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """Peaks by pipeline device."""

    stages: tuple[StageMemory, ...]
    capacity_bytes: float

    @property
    def peak_bytes(self) -> float:
        """The fullest rank."""
        return max(stage.peak_bytes for stage in self.stages)

    @property
    def fits(self) -> bool:
        """Whether the fullest rank stays within the device's memory."""
        return self.peak_bytes <= self.capacity_bytes


def memory_report(
    plan: RunPlan, placement: Sequence[Sequence[int]], orders: Sequence[Order], capacity_bytes: float
) -> MemoryReport:
    """The peak of every device under its schedule's order."""
    return MemoryReport(
        stages=tuple(_stage(plan, held, order) for held, order in zip(placement, orders, strict=True)),
        capacity_bytes=capacity_bytes,
    )


def _stage(plan: RunPlan, held: Sequence[int], order: Order) -> StageMemory:
    chunks = [plan.chunks[stage] for stage in held]
    parameters = sum(chunk.parameters for chunk in chunks)
    experts = sum(chunk.expert_parameters for chunk in chunks)
    return StageMemory(
        weights=weight_bytes(plan.data, chunks),
        gradients=gradient_bytes(plan.data, chunks),
        optimizer=plan.data.shard(parameters, experts) * plan.data.optimizer.state_bytes,
        activations=_peak_activations(plan, order),
        buffers=_buffers(plan, chunks, len(plan.chunks) > 1),
    )


def _peak_activations(plan: RunPlan, order: Order) -> float:
    """The most that is alive at once: saved by forwards whose gradients are not done, plus what the layer
    being worked on recomputes.
    """
    stages = {action.stage for action in _flat(order)}
    saved = {stage: plan.chunks[stage].saved_bytes for stage in stages}
    working = {stage: _working(plan.chunks[stage]) for stage in stages}
    alive = peak = 0.0
    for kind, stage, *_ in _flat(order):
        if kind is Kind.F:
            alive += saved[stage]
            peak = max(peak, alive)
        else:
            peak = max(peak, alive + working[stage])
            if kind is not Kind.I:
                alive -= saved[stage]
    return peak


def _flat(order: Order) -> Iterator[Action]:
    for action in order:
        yield action
        if action.partner is not None:
            yield action.partner


def _working(chunk: ChunkShare) -> float:
    """Recomputed activations, of one layer at a time."""
    return max((layer.working_bytes for layer in chunk.layers), default=0.0)


def _buffers(plan: RunPlan, chunks: Sequence[ChunkShare], pipelined: bool) -> float:
    """Boundary tensors being received and sent (two each way), and the largest layer's gathered input."""
    messages = 4 * plan.message_bytes if pipelined else 0.0
    return messages + max(layer.gathered_bytes for chunk in chunks for layer in chunk.layers)
