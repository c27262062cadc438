"""What the caching allocator keeps beyond what is allocated at most: a stage's tensors, replayed one by one.

Runs of equal layers are shortened and so is the step: the pattern in which blocks are split and taken again
is that of one layer and of the loss, and settles after a few microbatches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from simulator.memory.activations import Passes, flat
from simulator.memory.allocator import CachingAllocator
from simulator.partition.layer_share import LayerShare
from simulator.schedule.actions import Action, Kind, Order

Event = tuple[str, float]
EQUAL_LAYERS = 4  # of a run that are replayed
SETTLED = 8  # actions after the first backward pass
MOST_ACTIONS = 64


def fragmentation_bytes(passes: Passes, order: Order, *, expandable: bool) -> float:
    """Bytes reserved beyond the most that is allocated."""
    allocator = CachingAllocator(expandable=expandable)
    allocator.run(_events(passes, _beginning(order)))
    return float(allocator.reserved - allocator.peak_allocated)


def _beginning(order: Order) -> list[Action]:
    actions = list(flat(order))
    first = next((i for i, action in enumerate(actions) if action.kind is not Kind.F), 0)
    return actions[: min(first + SETTLED, MOST_ACTIONS)]


def _events(passes: Passes, actions: Sequence[Action]) -> Iterator[Event]:
    for kind, stage, microbatch, *rest in actions:
        layers = _shortened(passes.plan.chunks[stage].layers)
        label = f"{stage} {microbatch} {rest[0] if rest else ''}"
        if kind is Kind.F:
            for number, layer in enumerate(layers):
                yield from _forward(passes, layer, f"{label} {number}")
        elif kind is not Kind.W:
            for number in reversed(range(len(layers))):
                yield from _backward(passes, layers[number], f"{label} {number}")


def _shortened(layers: Sequence[LayerShare]) -> list[LayerShare]:
    kept: list[LayerShare] = []
    for layer in layers:
        if any(layer is not other for other in kept[-EQUAL_LAYERS:]) or len(kept) < EQUAL_LAYERS:
            kept.append(layer)
    return kept


def _recomputes(passes: Passes, layer: LayerShare) -> bool:
    kept = sum(size for _, size in passes.layer(layer).kept)
    return abs(kept - layer.saved_bytes) > 1.0


def _forward(passes: Passes, layer: LayerShare, label: str) -> Iterator[Event]:
    known = passes.layer(layer)
    yield from _unit(passes, layer, label)
    yield from ((f"{label} {name}", size) for name, size in known.forward)
    if _recomputes(passes, layer):
        if layer.saved_bytes:
            yield f"{label} saved", layer.saved_bytes
        yield from ((f"{label} {name}", 0.0) for name, _ in known.kept)
    yield from _unit(passes, layer, label, gone=True)


def _backward(passes: Passes, layer: LayerShare, label: str) -> Iterator[Event]:
    known = passes.layer(layer)
    kept = len(known.kept)
    yield from _unit(passes, layer, label)
    if _recomputes(passes, layer):
        yield from ((f"{label} {name}", size) for name, size in known.forward)
    own = {name for name, _ in known.kept}
    yield from ((f"{label} {name}", size) for name, size in known.backward if not (size and name in own))
    assert kept == len(own)
    if _recomputes(passes, layer) and layer.saved_bytes:
        yield f"{label} saved", 0.0
    yield from _unit(passes, layer, label, gone=True)


def _unit(passes: Passes, layer: LayerShare, label: str, *, gone: bool = False) -> Iterator[Event]:
    """Parameters of a fully sharded unit, whole while it computes."""
    data = passes.plan.data
    if data.fully_sharded and data.sharding.keep == "forward" and layer.weight_bytes:
        yield f"{label} unit", 0.0 if gone else layer.weight_bytes
