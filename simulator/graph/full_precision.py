"""A layer whose activations are fp32: what it reads, writes and keeps is twice as wide as in 16 bits."""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import LayerGraph, Node, Tensor
from simulator.graph.operators import DTYPE_BYTES, Gemm, KernelOp, MemoryBound

WIDTH = DTYPE_BYTES["fp32"] / DTYPE_BYTES["bf16"]
ALREADY_WIDE = frozenset({"cross_entropy", "accumulate"})  # kernels that work in fp32 in any case
FIXED = (".mask", ".statistics", "fp32")  # endings of the names of tensors that keep their width


def in_full_precision(layer: LayerGraph) -> LayerGraph:
    """The layer with fp32 tensors in place of 16-bit ones, FLOPs unchanged."""
    return replace(
        layer,
        kind=f"{layer.kind} in full precision",
        nodes=tuple(map(_widened, layer.nodes)),
        input_bytes=layer.input_bytes * WIDTH,
    )


def _widened(node: Node) -> Node:
    forward, backward = node.transients
    return replace(
        node,
        forward=_wide(node.forward),
        input_gradient=tuple(map(_wide, node.input_gradient)),
        weight_gradient=tuple(map(_wide, node.weight_gradient)),
        boundary_bytes=node.boundary_bytes * WIDTH,
        saves=tuple(map(_wide_tensor, node.saves)),
        transients=(tuple(x * WIDTH for x in forward), tuple(x * WIDTH for x in backward)),
    )


def _wide(op: KernelOp) -> KernelOp:
    if isinstance(op, Gemm):
        return replace(op, output_bytes_per_element=max(op.output_bytes_per_element, DTYPE_BYTES["fp32"]))
    if isinstance(op, MemoryBound) and op.kind not in ALREADY_WIDE:
        return replace(op, read_bytes=op.read_bytes * WIDTH, write_bytes=op.write_bytes * WIDTH)
    return op


def _wide_tensor(tensor: Tensor) -> Tensor:
    return tensor if tensor.name.endswith(FIXED) else replace(tensor, bytes=tensor.bytes * WIDTH)
