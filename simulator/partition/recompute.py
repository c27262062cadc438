"""Activation recomputation: which forward nodes run again before their gradients, and what is kept instead.

Full recompute keeps a layer's input and repeats its whole forward; selective recompute repeats chosen modules
(Korthikanti 2022, section 5).
"""

from __future__ import annotations

from itertools import groupby

from simulator.graph.layer import LayerGraph, Node
from simulator.partition.expert import run_backward, run_forward
from simulator.partition.segment import Segment, SegmentBuilder
from simulator.partition.tensor import TensorParallel

OUTPUT_DISCARDING = frozenset({"layernorm", "mla_up_proj", "moe_act"})
"""Modules whose output is dropped even where the next operator needs it: it is made again just before that
(Megatron-LM's ``CheckpointWithoutOutput``). The other modules keep their output, if someone after them does.
"""


def forward_segment(nodes: tuple[Node, ...], tp: TensorParallel) -> Segment:
    """A rank's forward pass through sharded nodes."""
    out = SegmentBuilder()
    for node in nodes:
        run_forward(node, tp, out)
    return out.build()


def backward_segment(
    nodes: tuple[Node, ...], tp: TensorParallel, *, full: bool, modules: frozenset[str]
) -> Segment:
    """A rank's backward pass, recomputed forward work included."""
    out = SegmentBuilder()
    if full:
        for node in nodes:
            run_forward(node, tp, out)
    for again, group in groupby(
        reversed(nodes), key=lambda node: not full and _selected(node.module, modules)
    ):
        run = list(group)
        if again:
            for node in reversed(run):
                run_forward(node, tp, out)
        for node in run:
            run_backward(node, tp, out)
    return out.build()


def saved_bytes(
    layer: LayerGraph, nodes: tuple[Node, ...], tp: TensorParallel, *, full: bool, modules: frozenset[str]
) -> float:
    """Bytes a rank keeps of one layer between its forward and its backward pass.

    A recomputed module keeps what it starts from and drops what it makes, unless a node outside keeps that
    too and the module does not discard its output.
    """
    discarding = modules & OUTPUT_DISCARDING
    if full:
        return layer.input_bytes / (tp.size if tp.sequence else 1)
    kept: dict[str, float] = {}
    for node in nodes:
        again = _selected(node.module, modules)
        kept.update(
            (t.name, t.bytes)
            for t in node.saves
            if not (again and _selected(t.origin, modules)) and not _selected(t.origin, discarding)
        )
    return sum(kept.values())


def _selected(module: str, modules: frozenset[str]) -> bool:
    """Whether a module, or one it is part of, is recomputed."""
    return module in modules or not modules.isdisjoint(module.split("."))
