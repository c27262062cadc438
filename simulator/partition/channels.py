"""Tensor parallelism of operator graphs: each rank has a share of every layer's channels.

Products split their outputs. A convolution whose groups divide over the ranks reads only channels that its
rank has; every other product has the rest of its input gathered first (Krizhevsky 2012, section 3.5: two GPUs
that meet at the third convolution and the dense layers) and reduce-scatters its gradient. Everything else
works on its own channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from simulator.graph.layer import Node
from simulator.graph.operators import Collective, Gemm, KernelOp, MemoryBound
from simulator.partition.segment import SegmentBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelNode(Node):
    """One rank's share of a product; ``gathers``: it needs the channels of the other ranks."""

    gathers: bool


def share_channels(node: Node, ranks: int) -> ChannelNode:
    """One rank's share of a product whose input and output are split by channels."""
    grouped = isinstance(node.forward, Gemm) and node.forward.batch % ranks == 0
    gathers = not grouped and node.boundary_bytes > 0.0 and ranks > 1
    fields = {name: getattr(node, name) for name in Node.__dataclass_fields__}
    fields["parameters"] = node.parameters / ranks
    for key in ("input_gradient", "weight_gradient"):
        fields[key] = tuple(_share(op, ranks, grouped=grouped) for op in getattr(node, key))
    fields["forward"] = _share(node.forward, ranks, grouped=grouped)
    if gathers:  # the gathered input is kept, beside the rank's own share that others may keep
        fields["saves"] = tuple(replace(t, name=f"{node.module}.gathered.input") for t in node.saves)
    elif node.boundary_bytes:  # the sample itself lies whole on every rank
        fields["saves"] = tuple(replace(t, bytes=t.bytes / ranks) for t in node.saves)
    return ChannelNode(**fields, gathers=gathers)


def _share(op: KernelOp, ranks: int, *, grouped: bool) -> KernelOp:
    if isinstance(op, MemoryBound):  # of weights or of output channels
        return replace(op, read_bytes=op.read_bytes / ranks, write_bytes=op.write_bytes / ranks)
    if not isinstance(op, Gemm):
        raise TypeError(f"channels of {type(op).__name__} {op.name!r} cannot be split")
    if grouped:
        return replace(op, batch=op.batch // ranks)
    if op.role == "forward":
        return replace(op, n=op.n // ranks)
    return replace(op, k=op.k // ranks) if op.role == "dgrad" else replace(op, m=op.m // ranks)


def channel_forward(node: ChannelNode, out: SegmentBuilder) -> None:
    """Appends a rank's forward product, after the gather it needs."""
    if node.gathers:
        out.exposed(_collective(node, "all_gather"))
    out.compute(node.forward)


def channel_backward(node: ChannelNode, out: SegmentBuilder) -> None:
    """Appends a rank's gradients; the reduction of the input's runs beside the weight gradient."""
    for op in node.input_gradient:
        out.compute(op)
    reduced: tuple[int, ...] = ()
    if node.gathers:
        reduced = (out.communicate(_collective(node, "reduce_scatter")),)
    for op in node.weight_gradient:
        if node.input_gradient:
            out.beside(op, beside=reduced)
        else:
            out.compute(op, weight_gradient=True)
    out.pending = (*out.pending, *reduced)


def _collective(node: ChannelNode, kind: Literal["all_gather", "reduce_scatter"]) -> Collective:
    return Collective(name=f"{node.module}.{kind}", kind=kind, axis="tp", size_bytes=node.boundary_bytes)
