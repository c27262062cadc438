"""Activation recomputation: which forward nodes run again before their gradients, and what is kept instead.

Full recompute keeps a layer's input and repeats its whole forward; selective recompute repeats chosen modules
(Korthikanti 2022, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from simulator.graph.layer import LayerGraph, Node
from simulator.graph.operators import Gemm
from simulator.partition import operator_recompute
from simulator.partition.expert import RoutedNode, run_backward, run_forward
from simulator.partition.segment import Segment, SegmentBuilder
from simulator.partition.tensor import TensorParallel

if TYPE_CHECKING:
    from simulator.partition.layer_share import LayerShare

OUTPUT_DISCARDING = frozenset({"layernorm", "mla_up_proj", "moe_act", "activation"})
"""Modules whose output is dropped even where the next operator needs it: it is made again just before that
(Megatron-LM's ``CheckpointWithoutOutput``; ``activation``, a dense MLP's, as xFormers' SwiGLU operator
makes its output again). The other modules keep their output, if someone after them does.
"""


def forward_segment(nodes: tuple[Node, ...], tp: TensorParallel) -> Segment:
    """A rank's forward pass through sharded nodes."""
    out = SegmentBuilder()
    for node in nodes:
        _captured(node, nodes, out)
        run_forward(node, tp, out)
    return out.build()


def backward_segment(
    nodes: tuple[Node, ...],
    tp: TensorParallel,
    *,
    full: bool,
    modules: frozenset[str],
    early_stop: bool = False,
) -> Segment:
    """A rank's backward pass, recomputed forward work included."""
    out = SegmentBuilder()
    by_operator = operator_recompute.MODULE in modules
    whole = needed_again(nodes) if early_stop else nodes
    first = whole if full else tuple(operator_recompute.repeated(nodes)) if by_operator else ()
    for node in first:
        _captured(node, nodes, out)
        run_forward(node, tp, out)
    for again, group in groupby(
        reversed(nodes), key=lambda node: not full and _selected(node.module, modules)
    ):
        run = list(group)
        if again:
            for node in reversed(run):
                _captured(node, nodes, out)
                run_forward(node, tp, out)
        for node in run:
            _captured(node, nodes, out)
            run_backward(node, tp, out)
    return out.build()


def needed_again(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """What a whole layer's recomputation runs where it ends with the last activation that a gradient needs.

    A linear layer keeps only its input, so the last one need not run, nor what follows it and keeps nothing.
    """
    needed = len(nodes)
    while needed and (not nodes[needed - 1].saves or _is_linear(nodes[needed - 1])):
        needed -= 1
    return nodes[:needed]


def _is_linear(node: Node) -> bool:
    return isinstance(node.forward, Gemm) and node.parameters > 0


def _captured(node: Node, nodes: tuple[Node, ...], out: SegmentBuilder) -> None:
    """Routed experts whose shapes the host waits for are in no CUDA graph of their layer."""
    dynamic = any(isinstance(other, RoutedNode) and other.count is not None for other in nodes)
    out.captured = node.captured and not (dynamic and isinstance(node, RoutedNode))


def saved_bytes(
    layer: LayerGraph, nodes: tuple[Node, ...], tp: TensorParallel, *, full: bool, modules: frozenset[str]
) -> float:
    """Bytes a rank keeps of one layer between its forward and its backward pass.

    A recomputed module keeps what it starts from and drops what it makes, unless a node outside keeps that
    too and the module does not discard its output.
    """
    discarding = modules & OUTPUT_DISCARDING
    if full:
        return layer.input_bytes / (tp.size if tp.splits_tokens else 1)
    if operator_recompute.MODULE in modules:
        return operator_recompute.kept_bytes(layer, nodes, tp)
    kept: dict[str, float] = {}
    for node in nodes:
        again = _selected(node.module, modules)
        kept.update(
            (t.name, t.bytes)
            for t in node.saves
            if not (again and _selected(t.origin, modules)) and not _selected(t.origin, discarding)
        )
    return sum(kept.values())


def in_units(layers: Sequence[LayerShare], size: int) -> list[LayerShare]:
    """Fully recomputed layers of a chunk in units of ``size``: only a unit's input is kept.

    While a unit is recomputed and its gradients are computed, all that its layers keep is there.
    """
    if size == 1:
        return list(layers)  # each is its own unit as it is
    shares: list[LayerShare] = []
    for start in range(0, len(layers), size):
        unit = layers[start : start + size]
        working = sum(layer.saved_bytes + layer.working_bytes for layer in unit) - unit[0].saved_bytes
        for layer in unit:
            kept = layer.saved_bytes if layer is unit[0] and not shares[start:] else 0.0
            shares.append(replace(layer, saved_bytes=kept, working_bytes=working))
    return shares


def requantizing(nodes: tuple[Node, ...], modules: frozenset[str]) -> tuple[Node, ...]:
    """Nodes whose quantised input is discarded and made again: they keep no copy for the weight gradient."""
    discarding = modules & OUTPUT_DISCARDING
    return tuple(_requantizing(node) if _discarded(node, discarding) else node for node in nodes)


def _discarded(node: Node, discarding: frozenset[str]) -> bool:
    return node.quantization is not None and any(_selected(t.origin, discarding) for t in node.saves)


def _requantizing(node: Node) -> Node:
    assert node.quantization is not None
    recipe = replace(node.quantization.recipe, keeps_wide_input=True)
    return replace(node, quantization=replace(node.quantization, recipe=recipe))


def _selected(module: str, modules: frozenset[str]) -> bool:
    """Whether a module, or one it is part of, is recomputed."""
    return module in modules or not modules.isdisjoint(module.split("."))
