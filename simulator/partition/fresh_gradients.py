"""Weight gradients that are reduced after every microbatch are new tensors: nothing is added to them."""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import Node
from simulator.graph.operators import Gemm, GroupedGemm, KernelOp


def without_accumulation(node: Node, gradient_bytes: float) -> Node:
    """The node with weight gradients written once, ``gradient_bytes`` per element."""
    return replace(
        node,
        weight_gradient=tuple(
            _written(op, gradient_bytes)
            for op in node.weight_gradient
            if getattr(op, "kind", "") != "accumulate"
        ),
    )


def _written(op: KernelOp, gradient_bytes: float) -> KernelOp:
    if isinstance(op, Gemm | GroupedGemm) and op.role == "wgrad":
        return replace(op, accumulate=False, output_bytes_per_element=gradient_bytes)
    return op
