"""A layer whose linear products run in a narrow format: which nodes change, and what they keep."""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import LayerGraph, Node, Quantization, Region, Tensor
from simulator.graph.operators import Gemm, GroupedGemm, KernelOp, MemoryBound
from simulator.graph.precision import WIDE_BYTES, Recipe

WIDE_MODULES = frozenset({"head", "router", "embedding"})  # their products stay in 16 bits or more


def quantize_layer(layer: LayerGraph, recipe: Recipe, *, fuse_norm: bool = True) -> LayerGraph:
    """The layer with its linear products in the recipe's format, FLOPs unchanged.

    ``fuse_norm``: a norm that feeds such a product writes its output quantised, where the recipe allows.
    """
    nodes: list[Node] = []
    for node in layer.nodes:
        if not _is_narrow(node):
            nodes.append(node)
            continue
        fused = (
            fuse_norm
            and recipe.norm_fused
            and node.region is Region.COLUMN
            and bool(nodes)
            and _is_norm(nodes[-1])
        )
        if fused:
            nodes[-1] = _quantizing_norm(nodes[-1], recipe)
        nodes.append(_narrow(node, recipe, input_done=fused))
    return replace(layer, kind=f"{layer.kind} {recipe.name}", nodes=tuple(nodes))


def _is_narrow(node: Node) -> bool:
    """A product with a weight; products of two activations stay wide."""
    return (
        isinstance(node.forward, Gemm | GroupedGemm)
        and node.parameters > 0
        and node.module.split(".", maxsplit=1)[0] not in WIDE_MODULES
    )


def _is_norm(node: Node) -> bool:
    return isinstance(node.forward, MemoryBound) and node.forward.kind == "norm"


def _quantizing_norm(node: Node, recipe: Recipe) -> Node:
    """Writes the copies it can instead of 2 bytes; a transposed one takes a kernel of its own."""
    assert isinstance(node.forward, MemoryBound)
    copies = 1 if recipe.second_is_transpose else recipe.copies
    narrow = recipe.element_bytes * copies / WIDE_BYTES
    return replace(node, forward=replace(node.forward, write_bytes=node.forward.write_bytes * narrow))


def _narrow(node: Node, recipe: Recipe, *, input_done: bool) -> Node:
    return replace(
        node,
        forward=_in_format(node.forward, recipe),
        input_gradient=tuple(_in_format(op, recipe) for op in node.input_gradient),
        weight_gradient=tuple(_in_format(op, recipe) for op in node.weight_gradient),
        saves=node.saves if recipe.keeps_wide_input else tuple(_kept(t, recipe) for t in node.saves),
        quantization=Quantization(recipe=recipe, input_done=input_done),
    )


def _in_format(op: KernelOp, recipe: Recipe) -> KernelOp:
    return replace(op, dtype=recipe.dtype) if isinstance(op, Gemm | GroupedGemm) else op


def _kept(tensor: Tensor, recipe: Recipe) -> Tensor:
    """One quantised copy of the input, for the weight gradient; a tensor of its own beside a 16-bit one."""
    size = tensor.bytes * recipe.element_bytes / WIDE_BYTES
    return replace(tensor, name=f"{tensor.name}.{recipe.dtype}", bytes=size)
