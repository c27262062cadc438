"""Memory of every pipeline device at its peak: what its parameters take, the most that its schedule keeps
alive of activations, gradients and temporaries, and what the software and the allocator take beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Literal, NamedTuple

from simulator.memory.activations import Level, Passes
from simulator.memory.fragmentation import fragmentation_bytes
from simulator.memory.layer_pass import placeholder_shapes
from simulator.memory.overheads import Overheads, overheads
from simulator.memory.peaks import Same, peak_levels
from simulator.memory.shards import gradient_bytes, optimizer_bytes, weight_bytes
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import DataParallel
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Order
from simulator.schedule.definition import Schedule
from simulator.schedule.notation import format_action
from simulator.spec.run import RunSpec

Verdict = Literal["fits", "may not fit", "does not fit"]

RELATIVE_ERROR = 0.06
"""How far peaks may be off: no published one is further, allocated or reserved; a test holds predictions of
published runs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Bytes on one rank of a pipeline device at its peak.

    ``activations`` include the gradients and temporaries of the layer that runs; ``buffers`` are messages
    under way, workspaces and tensors that stand for weight gradients; ``fragmentation`` is what PyTorch's
    allocator holds beyond the most that was allocated; ``context`` and ``communication`` are CUDA's and
    NCCL's. ``peak_action`` runs at the peak, beside ``kept_forwards`` of chunks that wait for their backward.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float
    fragmentation: float = 0.0
    context: float = 0.0
    communication: float = 0.0
    peak_action: str = ""
    kept_forwards: int = 0

    @property
    def allocated_bytes(self) -> float:
        """All tensors (``torch.cuda.max_memory_allocated``)."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers

    @property
    def reserved_bytes(self) -> float:
        """All that PyTorch holds (``torch.cuda.max_memory_reserved``)."""
        return self.allocated_bytes + self.fragmentation

    @property
    def peak_bytes(self) -> float:
        """What the device has to hold.

        Free blocks do not count: PyTorch gives them back before it reports that memory is short.
        """
        return self.allocated_bytes + self.context + self.communication

    @property
    def comfortable_bytes(self) -> float:
        """With all that PyTorch would like to keep."""
        return self.reserved_bytes + self.context + self.communication


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """Peaks by pipeline device.

    ``allocated`` are the devices but for what the allocator wastes, which ``wasted`` finds out for all of
    them: that takes longer than everything else, and whether a run fits does not depend on it.
    """

    allocated: tuple[StageMemory, ...]
    wasted: Callable[[Sequence[StageMemory]], tuple[StageMemory, ...]]
    capacity_bytes: float

    @cached_property
    def stages(self) -> tuple[StageMemory, ...]:
        """The devices with everything."""
        return self.wasted(self.allocated)

    @property
    def fullest(self) -> StageMemory:
        """The device with the highest peak, fragmentation left out."""
        return max(self.allocated, key=lambda stage: stage.peak_bytes)

    @property
    def peak_bytes(self) -> float:
        """The fullest rank."""
        return self.fullest.peak_bytes

    @property
    def fits(self) -> bool:
        """Whether the fullest rank stays within the device's memory, errors not considered."""
        return self.peak_bytes <= self.capacity_bytes

    @property
    def allocated_bytes(self) -> float:
        """The most tensors of any rank."""
        return max(stage.allocated_bytes for stage in self.allocated)

    @property
    def reserved_bytes(self) -> float:
        """The most that PyTorch holds on any rank."""
        return max(stage.reserved_bytes for stage in self.stages)

    @property
    def comfortable_bytes(self) -> float:
        """The fullest rank with all that PyTorch would like to keep."""
        return max(stage.comfortable_bytes for stage in self.stages)

    @property
    def verdict(self) -> Verdict:
        """Whether it fits, as far as the model can tell."""
        if self.peak_bytes * (1.0 - RELATIVE_ERROR) > self.capacity_bytes:
            return "does not fit"
        if self.peak_bytes * (1.0 + RELATIVE_ERROR) > self.capacity_bytes:
            return "may not fit"
        least = self.comfortable_bytes * (1.0 + RELATIVE_ERROR)
        return "fits" if least <= self.capacity_bytes else "may not fit"


def memory_report(run: RunSpec, plan: RunPlan, schedule: Schedule, orders: Sequence[Order]) -> MemoryReport:
    """The peak of every device under its schedule's order."""
    beside = overheads(run, schedule)
    return MemoryReport(
        allocated=_stages(plan, schedule, run.parallelism.vp, Same(orders), beside),
        wasted=partial(_with_fragmentation, passes=Passes(plan), orders=orders, beside=beside),
        capacity_bytes=run.cluster.device.memory_bytes,
    )


@lru_cache(maxsize=64)  # what overlaps and what does not is the same here
def _stages(
    plan: RunPlan, schedule: Schedule, vp: int, orders: Same[Sequence[Order]], beside: Overheads
) -> tuple[StageMemory, ...]:
    devices = len(orders.thing)
    return tuple(
        _stage(
            beside,
            _held(plan.data, tuple(plan.chunks[stage] for stage in stages), plan.forward_only),
            schedule.weight_versions(devices, device),
            beside.messages * plan.message_bytes,
            peak,
        )
        for device, (stages, peak) in enumerate(
            zip(schedule.placement(devices, vp), peak_levels(Passes(plan), orders.thing), strict=True)
        )
    )


class _Held(NamedTuple):
    """What is on a device for the whole step, in bytes."""

    weights: float
    gradients: float
    optimizer: float
    placeholders: float


@lru_cache(maxsize=4096)
def _held(data: DataParallel, chunks: tuple[ChunkShare, ...], forward_only: bool) -> _Held:
    parameters = sum(chunk.parameters for chunk in chunks)
    experts = sum(chunk.expert_parameters for chunk in chunks)
    return _Held(
        weights=weight_bytes(data, chunks),
        gradients=0.0 if forward_only else gradient_bytes(data, chunks),
        optimizer=0.0 if forward_only else optimizer_bytes(data, parameters, experts),
        placeholders=_placeholders(chunks),
    )


def _stage(beside: Overheads, held: _Held, versions: int, messages: float, peak: Level | None) -> StageMemory:
    """``versions`` of the weights are kept, of what updates them one."""
    return StageMemory(
        weights=versions * held.weights,
        gradients=held.gradients + (peak.gradients if peak else 0.0),
        optimizer=held.optimizer,
        activations=peak.most if peak else 0.0,
        buffers=held.placeholders + messages + beside.workspace,
        context=beside.context,
        communication=beside.communication,
        peak_action=format_action(peak.action) if peak else "",
        kept_forwards=peak.kept if peak else 0,
    )


def _placeholders(chunks: Sequence[ChunkShare]) -> float:
    """Tensors that stand for weight gradients, one of each shape."""
    shapes: dict[tuple[int, int], float] = {}
    for layer in dict.fromkeys([layer for chunk in dict.fromkeys(chunks) for layer in chunk.layers]):
        shapes |= _placeholder_shapes(layer)
    return sum(shapes.values())


@lru_cache(maxsize=4096)  # similar runs have layers in common
def _placeholder_shapes(layer: LayerShare) -> dict[tuple[int, int], float]:
    return placeholder_shapes(layer.nodes)


def _with_fragmentation(
    stages: Sequence[StageMemory], passes: Passes, orders: Sequence[Order], beside: Overheads
) -> tuple[StageMemory, ...]:
    """The allocator is replayed on the stage with most tensors; the others lose the same share."""
    fullest = max(range(len(stages)), key=lambda index: stages[index].allocated_bytes)
    wasted = fragmentation_bytes(passes, orders[fullest], expandable=beside.expandable)
    share = wasted / stages[fullest].activations if stages[fullest].activations else 0.0
    return tuple(replace(stage, fragmentation=share * stage.activations) for stage in stages)
