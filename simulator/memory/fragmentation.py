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


def _kept(passes: Passes, layer: LayerShare) -> dict[str, float]:
    """Tensors that stay between a layer's passes: the first ones, as many as it keeps bytes.

    Which ones recompute keeps does not matter here, only that so many bytes stay in tensors of such sizes.
    """
    kept: dict[str, float] = {}
    left = layer.saved_bytes
    for name, size in passes.layer(layer).kept:
        if left > 0.0:
            kept[name] = min(size, left)
            left -= size
    return kept


def _forward(passes: Passes, layer: LayerShare, label: str) -> Iterator[Event]:
    kept = _kept(passes, layer)
    yield from _unit(passes, layer, label)
    for name, size in passes.layer(layer).forward:
        yield f"{label} {name}", min(size, kept.get(name, size))
    for name, _ in passes.layer(layer).kept:
        if name not in kept:
            yield f"{label} {name}", 0.0
    yield from _unit(passes, layer, label, gone=True)


def _backward(passes: Passes, layer: LayerShare, label: str) -> Iterator[Event]:
    kept = _kept(passes, layer)
    yield from _unit(passes, layer, label)
    for name, size in passes.layer(layer).backward:
        if not (size and name in kept):  # else it is there; the rest is computed again
            yield f"{label} {name}", size
    yield from _unit(passes, layer, label, gone=True)


def _unit(passes: Passes, layer: LayerShare, label: str, *, gone: bool = False) -> Iterator[Event]:
    """Parameters of a fully sharded unit, whole while it computes."""
    data = passes.plan.data
    if data.fully_sharded and data.sharding.keep == "forward" and layer.weight_bytes:
        yield f"{label} unit", 0.0 if gone else layer.weight_bytes
