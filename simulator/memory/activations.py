"""The most activations alive on a rank under its schedule's order, with gradients that come and go too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat, zip_longest
from typing import NamedTuple

from simulator.memory.layer_pass import LayerPasses, layer_passes
from simulator.partition.chunk import ChunkShare
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import RunPlan
from simulator.partition.tensor import TensorParallel
from simulator.schedule.actions import Action, Kind, Order


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPasses:
    """Bytes of one microbatch in a chunk.

    ``saved`` stays from forward to backward; the peaks are what an action adds at most to what was alive
    before it. ``deferred`` stays from an input-gradient pass to its weight-gradient pass.
    """

    saved: float
    forward: float
    backward: float
    input_gradient: float
    deferred: float

    @property
    def changes(self) -> tuple[tuple[float, float], ...]:
        """By kind of action: the most it adds to what was alive before it, and what it leaves."""
        return (
            (self.forward, self.saved),
            (self.backward, -self.saved),
            (self.input_gradient, self.deferred - self.saved),
            (0.0, -self.deferred),
        )


@lru_cache(maxsize=4096)  # similar runs have layers in common
def _layer_passes(layer: LayerShare, tp: TensorParallel, gradient_tensors: bool) -> LayerPasses:
    return layer_passes(layer.nodes, tp, gradient_tensors=gradient_tensors)


@lru_cache(maxsize=4096)
def _chunk_passes(
    chunk: ChunkShare, tp: TensorParallel, gradient_tensors: bool, forward_only: bool
) -> ChunkPasses:
    passes = {layer: _layer_passes(layer, tp, gradient_tensors) for layer in dict.fromkeys(chunk.layers)}
    saved = forward = 0.0
    for layer in chunk.layers:
        saved += layer.saved_bytes
        alone = layer.working_bytes if forward_only else 0.0  # gone when the layer is done
        forward = max(forward, saved + alone + passes[layer].forward_peak)
    alive, backward = saved, 0.0
    deferred, split = 0.0, 0.0
    for layer in reversed(chunk.layers):
        peaks = passes[layer]
        during = layer.working_bytes + peaks.backward_peak
        backward = max(backward, alive + during)
        split = max(split, alive + deferred + during)
        alive -= layer.saved_bytes
        deferred += peaks.deferred
    return ChunkPasses(
        saved=saved,
        forward=forward,
        backward=backward - saved,
        input_gradient=split - saved,
        deferred=deferred,
    )


class Passes:
    """Peaks by layer and chunk, each worked out once."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        # fully sharded, gradients fill a unit's bucket, counted with gradients
        self._gradient_tensors = not plan.data.fully_sharded
        self._chunks: dict[int, ChunkPasses] = {}

    def layer(self, layer: LayerShare) -> LayerPasses:
        """Of one layer."""
        return _layer_passes(layer, self.plan.tensor, self._gradient_tensors)

    def chunk(self, stage: int) -> ChunkPasses:
        """Of the chunk of a virtual stage."""
        chunk = self.plan.chunks[stage]
        found = self._chunks.get(id(chunk))
        if found is None:
            plan = self.plan
            found = _chunk_passes(chunk, plan.tensor, self._gradient_tensors, plan.forward_only)
            self._chunks[id(chunk)] = found
        return found

    def together(self, one: Action, other: Action) -> float:
        """What a pair adds at most: layer by layer, one goes forward beside the other's backward."""
        courses = [self._course(action) for action in (one, other)]
        return max(map(sum, zip_longest(*courses, fillvalue=0.0)))

    def _course(self, action: Action) -> list[float]:
        """Bytes over those before the action while each of its layers runs, and after it."""
        layers = self.plan.chunks[action.stage].layers
        changed, course = 0.0, []
        for layer in layers if action.kind is Kind.F else reversed(layers):
            peaks = self.layer(layer)
            if action.kind is Kind.F:
                changed += layer.saved_bytes
                course.append(changed + peaks.forward_peak)
            else:
                course.append(changed + layer.working_bytes + peaks.backward_peak)
                changed += (peaks.deferred if action.kind is Kind.I else 0.0) - layer.saved_bytes
        return [*course, changed]


class Level(NamedTuple):
    """Bytes around one action: the most alive while it runs, what it leaves alive, and the whole gradients
    there meanwhile, which ``most`` and ``alive`` do not count; ``kept``: forwards kept when it starts.
    """

    action: Action
    kept: int
    most: float
    alive: float
    gradients: float


def levels(passes: Passes, order: Order) -> Iterator[Level]:
    """Action by action."""
    alive, kept = 0.0, 0
    for action, gradients in zip(order, whole_gradients(passes.plan, order), strict=True):
        each = action.parts
        changes = [passes.chunk(one.stage).changes[one.kind] for one in each]
        rise = changes[0][0] if action.partner is None else passes.together(action, action.partner)
        most = alive + rise
        alive += sum(left for _, left in changes)
        yield Level(action, kept, most, alive, gradients)
        kept += sum({Kind.F: 1, Kind.W: 0}.get(one.kind, -1) for one in each)


def whole_gradients(plan: RunPlan, order: Order) -> Iterator[float]:
    """Bytes of unsharded gradients during every action, where sharded parameters' are reduced once a step.

    PyTorch's FSDP allocates a unit's at its first backward pass and frees them once they are reduced, after
    its last one (``accumulate_unsharded_grad_if_needed`` and ``post_backward`` of ``FSDPParamGroup``): at the
    end of a pipeline's warm-up, when most activations are alive, there are none. Other software holds them
    for the whole step (``gradient_bytes`` of ``shards.py`` counts those).
    """
    if not plan.data.frees_whole_gradients:
        yield from repeat(0.0, len(order))
        return
    left = Counter(one.stage for one in flat(order) if one.kind is not Kind.F)
    unreduced: dict[int, float] = {}
    for action in order:
        stages = [one.stage for one in flat([action]) if one.kind is not Kind.F]
        for stage in stages:
            unreduced[stage] = plan.chunks[stage].parameters * plan.data.grad_bytes
        yield sum(unreduced.values())
        left.subtract(stages)
        for stage in stages:
            if not left[stage]:
                unreduced.pop(stage, None)


def flat(order: Order) -> Iterator[Action]:
    """Actions one by one, those of a pair after each other."""
    for action in order:
        yield action
        if action.partner is not None:
            yield action.partner
