"""A layer whose linear products run in a narrow format: which nodes change, and what they keep."""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import LayerGraph, Node, Quantization, Region, Tensor, elementwise
from simulator.graph.operators import Attention, Gemm, GroupedGemm, KernelOp, MemoryBound
from simulator.graph.precision import WIDE_BYTES, Recipe

WIDE_MODULES = frozenset({"head", "router", "embedding", "adapter"})  # their products stay in 16 bits or more


def quantize_layer(
    layer: LayerGraph,
    recipe: Recipe,
    *,
    fuse_norm: bool = True,
    attention: bool = False,
    pad_rows: bool = False,
) -> LayerGraph:
    """The layer with its linear products in the recipe's format, FLOPs unchanged.

    ``fuse_norm``: a norm that feeds such a product writes its output quantised, where the recipe allows.
    ``attention``: the core runs in fp8 too. ``pad_rows``: copies bring each expert's rows to a multiple of
    what the format's products take, and back.
    """
    nodes: list[Node] = []
    for node in _padded(layer.nodes) if pad_rows else layer.nodes:
        if attention and isinstance(node.forward, Attention):
            nodes += _narrow_core(node, node.forward)
            continue
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


def _padded(nodes: tuple[Node, ...]) -> list[Node]:
    """With a copy of the experts' rows before their first product, and one behind their last work on rows.

    Probabilities are padded beside the rows (Megatron-LM's `TEGroupedMLP` with Transformer Engine's
    `Fp8Padding`).
    """
    out: list[Node] = []
    row_bytes = 0.0
    for node in nodes:
        if node.region is Region.EXPERT_COLUMN and isinstance(node.forward, GroupedGemm):
            row_bytes = node.forward.rows * node.forward.k * WIDE_BYTES
            out.append(_copied_rows("experts.pad", row_bytes, kernels=2))
        elif node.region is Region.DEPARTURE and row_bytes:
            out.append(_copied_rows("experts.unpad", row_bytes, kernels=1))
        out.append(node)
    return out


def _copied_rows(name: str, size: float, *, kernels: int) -> Node:
    return elementwise(
        name,
        "copy",
        module="moe.experts",
        region=Region.EXPERT_ROW,
        forward=(size, size),
        backward=(size, size),
        kernels=(kernels, kernels),
    )


def _is_narrow(node: Node) -> bool:
    """A product with a weight; products of two activations stay wide."""
    parts = node.module.split(".")
    return (
        isinstance(node.forward, Gemm | GroupedGemm)
        and node.parameters > 0
        and WIDE_MODULES.isdisjoint((parts[0], parts[-1]))
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


def _narrow_core(node: Node, core: Attention) -> tuple[Node, Node]:
    """Attention in fp8: Q, K and V are cast before it, the output gradient before its backward.

    Kept: Q, K and V as cast; the output in 16 bits. Per-tensor scales, as Transformer Engine's fp8 attention.
    """
    queries, keys = core.batch * core.seq_q * core.heads, core.batch * core.seq_kv * core.kv_heads
    width = core.qk_head_dim + core.v_head_dim
    cast = _cast(f"{core.name}.qkv", queries * core.qk_head_dim + keys * width)
    backward = tuple(
        replace(op, dtype="fp8") if isinstance(op, Attention) else op for op in node.input_gradient
    )
    gradient = _cast(f"{core.name}.grad", queries * core.v_head_dim)
    kept = tuple(
        replace(t, name=f"{t.name}.fp8", bytes=t.bytes / WIDE_BYTES) if t.name in ("q", "k", "v") else t
        for t in node.saves
    )
    narrow = replace(
        node, forward=replace(core, dtype="fp8"), input_gradient=(gradient, *backward), saves=kept
    )
    return Node(forward=cast, module=node.module, region=node.region), narrow


def _cast(name: str, elements: float) -> MemoryBound:
    """16 bits to fp8."""
    size = elements * WIDE_BYTES
    return MemoryBound(name=f"{name}.quantize", kind="quantize", read_bytes=size, write_bytes=elements)
