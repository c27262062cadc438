"""Low-rank adapters beside frozen products (LoRA, Hu 2021, arXiv 2106.09685, section 4.1).

Only adapters are trained: y = x·W + (x·A)·B with A [inputs, rank] and B [rank, outputs]. Everything else is
frozen: no weight gradient and no input kept for one, but the gradients of inputs flow through all layers.

Tensor parallelism divides them as Megatron-Bridge's ``ParallelLinearAdapter`` in effect does. Beside a
column-parallel product each rank runs A on its tokens and B on its features; beside a row-parallel one A on
its features and B on its tokens; in between the small [tokens, rank] travels.

Left out: dropout before A (off in the performance recipes), and that the first layer needs no gradient of its
input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simulator.graph.blocks import attention_weights, mlp_weights
from simulator.graph.layer import LayerGraph, Node, Region, Tensor, elementwise, linear
from simulator.graph.operators import DTYPE_BYTES, Gemm, MemoryBound
from simulator.graph.options import GraphOptions
from simulator.spec.lora import Lora
from simulator.spec.model import ModelSpec

TARGETS = {"qkv": "linear_qkv", "proj": "linear_proj", "fc1": "linear_fc1", "fc2": "linear_fc2"}
"""Products of a layer by name, and what Megatron-Core calls their modules."""
WIDE = DTYPE_BYTES["bf16"]  # adapters stay in 16 bits beside narrower products


def adapt(layer: LayerGraph, opts: GraphOptions) -> LayerGraph:
    """The layer with all its weights frozen and adapters beside the products asked for; itself without."""
    lora = opts.lora
    if lora is None:
        return layer
    nodes: list[Node] = []
    for node in layer.nodes:
        frozen = replace(node, trained=False, weight_gradient=(), saves=_without_input(node))
        if TARGETS.get(node.forward.name) not in lora.targets or not isinstance(node.forward, Gemm):
            nodes.append(frozen)
            continue
        down, up, add = _adapter(node, node.forward, lora.rank, opts)
        nodes += [frozen, down, up, add] if node.region is Region.ROW else [down, frozen, up, add]
    return replace(layer, kind=f"{layer.kind} LoRA {lora.rank} {'+'.join(lora.targets)}", nodes=tuple(nodes))


def _without_input(node: Node) -> tuple[Tensor, ...]:
    """What a frozen node keeps: products nothing, for their input was kept for a weight gradient."""
    return () if isinstance(node.forward, Gemm) and node.parameters else node.saves


def _adapter(node: Node, product: Gemm, rank: int, opts: GraphOptions) -> Iterator[Node]:
    """Down, up and the addition to what the product gives."""
    name, tokens, row = product.name, product.m, node.region is Region.ROW
    small = Tensor(
        name=f"{name}.adapter",
        bytes=tokens * rank * WIDE,
        region=Region.SEQUENCE,
        origin=node.module,
    )
    shared = {
        "module": f"{node.module}.adapter",
        "tokens": tokens,
        "dtype": product.dtype if product.dtype in ("fp16", "fp32", "tf32") else "bf16",
        "grad_bytes": opts.grad_bytes,
        "fused_accumulation": opts.fused_accumulation,
    }
    down = linear(
        f"{name}.lora_down",
        region=Region.ROW if row else Region.SEQUENCE,
        inputs=product.k,
        outputs=rank,
        saves=node.saves,
        **shared,  # type: ignore[arg-type]
    )
    size = tokens * product.k * WIDE
    join = MemoryBound(
        name=f"{name}.lora_join", kind="residual", read_bytes=2 * size, write_bytes=size
    )  # the gradients of both uses of the input
    yield _replicated(replace(down, input_gradient=(*down.input_gradient, join)))
    up = linear(
        f"{name}.lora_up",
        region=Region.SEQUENCE if row else Region.COLUMN,
        inputs=rank,
        outputs=product.n,
        saves=(small,),
        **shared,  # type: ignore[arg-type]
    )
    yield _replicated(up)
    out = tokens * product.n * WIDE
    yield elementwise(
        f"{name}.lora_add",
        "residual",
        module=f"{node.module}.adapter",
        region=Region.SEQUENCE if row else Region.FEATURE,
        forward=(2 * out, out),
        backward=None,
    )


def _replicated(node: Node) -> Node:
    """A product on split tokens: every rank of the TP group holds its whole weight."""
    if node.region is not Region.SEQUENCE:
        return node
    return replace(node, boundary_bytes=0.0, parameters=0.0, replicated_parameters=node.parameters)


def untrained_flops(model: ModelSpec, lora: Lora, *, tokens: float, vocab_size: int) -> float:
    """What a step saves against training every weight: weight gradients, 2 FLOPs per weight and token.

    Adapters add 6 per weight of theirs. ``vocab_size`` is that of the logits.
    """
    if not lora.rank:
        return 0.0
    layer = attention_weights(model) + mlp_weights(model)
    frozen = model.num_hidden_layers * layer + model.hidden_size * vocab_size
    return tokens * (2.0 * frozen - 6.0 * adapter_weights(model, lora))


def adapter_weights(model: ModelSpec, lora: Lora) -> int:
    """Elements of all adapters of a dense decoder."""
    h, f, d = model.hidden_size, model.intermediate_size, model.head_dim
    sides = {
        "linear_qkv": h + (model.num_attention_heads + 2 * model.num_key_value_heads) * d,
        "linear_proj": model.num_attention_heads * d + h,
        "linear_fc1": h + (2 if model.gated_mlp else 1) * f,
        "linear_fc2": f + h,
    }
    return model.num_hidden_layers * lora.rank * sum(sides[target] for target in lora.targets)
