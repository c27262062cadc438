"""torchtitan's selective activation checkpointing by operator: keep what is dear to compute, repeat the rest.

Kept are the layer's input, the outputs of every other matrix product (the first, the third …), of the
attention core and of reduce-scatters; all other operators run again, gathers included (torchtitan's
``selective_ac_option = "op"``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from simulator.graph.layer import LayerGraph, Node, Region
from simulator.graph.operators import Attention, Gemm
from simulator.partition.tensor import TensorParallel

MODULE = "per-op"  # its name in ``training.recompute.modules``
OUTPUT_BYTES = 2.0


class Product(NamedTuple):
    """A linear layer and the share of its output features that is kept."""

    node: Node
    op: Gemm
    kept: float


def repeated(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Sharded nodes that run again, up to the last product: nothing needs what follows it."""
    products = {id(product.node): product for product in _products(nodes)}
    last = max((index for index, node in enumerate(nodes) if id(node) in products), default=-1)
    for node in nodes[: last + 1]:
        product = products.get(id(node))
        if product is None:
            if not isinstance(node.forward, Attention):
                yield node
        elif product.kept < 1.0:
            again = replace(product.op, n=max(1, round(product.op.n * (1.0 - product.kept))))
            row = node.region is Region.ROW  # its reduce-scatter's output is kept
            yield replace(node, forward=again, region=Region.FEATURE if row else node.region)


def kept_bytes(layer: LayerGraph, nodes: tuple[Node, ...], tp: TensorParallel) -> float:
    """What a rank keeps of the layer until its backward pass."""
    size = layer.input_bytes / (tp.size if tp.splits_tokens else 1)
    for node, op, kept in _products(nodes):
        size += kept * op.m * op.n * OUTPUT_BYTES
        if node.region is Region.ROW and tp.size > 1 and tp.sequence:
            size += node.boundary_bytes / tp.size
    core = {t.name: t.bytes for node in nodes for t in node.saves if t.origin == "core_attn"}
    return size + sum(core.values())


def _products(nodes: tuple[Node, ...]) -> Iterator[Product]:
    """Linear layers in order; software without fused projections runs each of ``Node.products`` by itself."""
    count = 0
    for node in nodes:
        if isinstance(node.forward, Gemm) and node.parameters:
            widths = node.products or (1,)
            kept = sum(width for index, width in enumerate(widths, start=count) if index % 2 == 0)
            count += len(widths)
            yield Product(node, node.forward, kept / sum(widths))
