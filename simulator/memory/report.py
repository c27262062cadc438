"""Peak memory of every pipeline device: what its parameters take, and the most that its schedule keeps alive
of activations, gradients of activations and temporaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.memory.activations import Passes, peak_activations
from simulator.memory.layer_pass import placeholder_shapes
from simulator.memory.shards import gradient_bytes, optimizer_bytes, weight_bytes
from simulator.partition.plan import ChunkShare, RunPlan
from simulator.schedule.actions import Order


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
    passes = Passes(plan)
    return MemoryReport(
        stages=tuple(
            _stage(plan, passes, held, order) for held, order in zip(placement, orders, strict=True)
        ),
        capacity_bytes=capacity_bytes,
    )


def _stage(plan: RunPlan, passes: Passes, held: Sequence[int], order: Order) -> StageMemory:
    chunks = [plan.chunks[stage] for stage in held]
    parameters = sum(chunk.parameters for chunk in chunks)
    experts = sum(chunk.expert_parameters for chunk in chunks)
    return StageMemory(
        weights=weight_bytes(plan.data, chunks),
        gradients=gradient_bytes(plan.data, chunks),
        optimizer=optimizer_bytes(plan.data, parameters, experts),
        activations=peak_activations(passes, order),
        buffers=_buffers(plan, chunks, len(plan.chunks) > 1),
    )


def _buffers(plan: RunPlan, chunks: Sequence[ChunkShare], pipelined: bool) -> float:
    """Boundary tensors being received and sent (two each way), and stand-ins for weight gradients."""
    messages = 4 * plan.message_bytes if pipelined else 0.0
    shapes: dict[tuple[int, int], float] = {}
    for chunk in chunks:
        for layer in chunk.layers:
            shapes |= placeholder_shapes(layer.nodes)
    return messages + sum(shapes.values())
