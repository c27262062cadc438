"""Activation recomputation: which forward nodes run again before their gradients, and what is kept instead.

Full recompute keeps a layer's input and repeats its whole forward; selective recompute repeats chosen modules
(Korthikanti 2022, section 5).
"""

from __future__ import annotations

from itertools import groupby

from simulator.graph.layer import LayerGraph, Node
from simulator.partition.segment import Segment, SegmentBuilder
from simulator.partition.tensor import TensorParallel, backward_steps, forward_steps

SELECTIVE_MODULES = ("core_attn", "mlp", "mlp.activation", "layernorm")
"""What ``training.recompute.modules`` may name."""


def forward_segment(nodes: tuple[Node, ...], tp: TensorParallel) -> Segment:
    """A rank's forward pass through sharded nodes."""
    out = SegmentBuilder()
    for node in nodes:
        forward_steps(node, tp, out)
    return out.build()


def backward_segment(
    nodes: tuple[Node, ...], tp: TensorParallel, *, full: bool, modules: frozenset[str]
) -> Segment:
    """A rank's backward pass, recomputed forward work included."""
    out = SegmentBuilder()
    if full:
        for node in nodes:
            forward_steps(node, tp, out)
    for again, group in groupby(
        reversed(nodes), key=lambda node: not full and _selected(node.module, modules)
    ):
        run = list(group)
        if again:
            for node in reversed(run):
                forward_steps(node, tp, out)
        for node in run:
            backward_steps(node, tp, out)
    return out.build()


def saved_bytes(
    layer: LayerGraph, nodes: tuple[Node, ...], tp: TensorParallel, *, full: bool, modules: frozenset[str]
) -> float:
    """Bytes a rank keeps of one layer between its forward and its backward pass.

    A recomputed module keeps what it starts from and drops what it makes, unless a node outside keeps that
    too.
    """
    if full:
        return layer.input_bytes / (tp.size if tp.sequence else 1)
    kept: dict[str, float] = {}
    for node in nodes:
        again = _selected(node.module, modules)
        kept.update((t.name, t.bytes) for t in node.saves if not (again and _selected(t.origin, modules)))
    return sum(kept.values())


def _selected(module: str, modules: frozenset[str]) -> bool:
    """Whether a module, or the one it is part of, is recomputed."""
    return module in modules or module.split(".", maxsplit=1)[0] in modules
