"""What encoders have beside a decoder's blocks: bidirectional and cross attention, the way from encoder to
decoder, image patches, and the heads of BERT and of a classifier.

Devlin 2018 (BERT, arXiv 1810.04805), Raffel 2020 (T5, arXiv 1910.10683), Dosovitskiy 2021 (ViT, arXiv
2010.11929). Norms stand before a block or after it: the kernels are the same.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.fusion import fused
from simulator.graph.layer import LayerGraph, Node, Region, Tensor, elementwise, flash_attention, linear
from simulator.graph.operators import Attention, MemoryBound
from simulator.graph.options import GraphOptions
from simulator.graph.transformer import (
    ACTIVATION_BYTES,
    STATISTIC_BYTES,
    activation,
    attention_block,
    norm,
    projection,
    residual,
)
from simulator.spec.model import ModelSpec


def bidirectional_attention(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """An attention block whose tokens see the whole sequence."""
    return attention_block(model, replace(opts, causal=False))


def cross_attention(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Queries of the decoder's tokens, keys and values of the encoder's, which every layer projects anew."""
    memory = opts.of_encoder
    width = model.num_attention_heads * model.head_dim
    kv = 2 * model.num_key_value_heads * model.head_dim
    return (
        norm(model, opts, "cross_norm"),
        _projection("cross_q", model, opts, width, "cross_q.input", "layernorm"),
        _projection("cross_kv", model, memory, kv, "encoder.output", "encoder"),
        _cross_core(model, opts),
        _output(model, opts, width),
        residual(model, opts, "cross_residual"),
    )


def _output(model: ModelSpec, opts: GraphOptions, width: int) -> Node:
    """The projection of an attention block, under names of its own."""
    kept = activation("cross.out", opts.tokens * width, Region.FEATURE, "core_attn")
    return replace(projection(model, opts, width=width), saves=(kept,))


def _projection(
    name: str, model: ModelSpec, opts: GraphOptions, outputs: int, saved: str, origin: str
) -> Node:
    return linear(
        name,
        module="attention",
        region=Region.COLUMN,
        tokens=opts.tokens,
        inputs=model.hidden_size,
        outputs=outputs,
        dtype=opts.dtype,
        bias=model.linear_bias,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation(saved, opts.tokens * model.hidden_size, Region.SEQUENCE, origin),),
    )


def _cross_core(model: ModelSpec, opts: GraphOptions) -> Node:
    memory = opts.of_encoder
    heads, kv_heads, head = model.num_attention_heads, model.num_key_value_heads, model.head_dim
    queries, keys = opts.tokens * heads * head, memory.tokens * kv_heads * head
    statistics = opts.tokens * heads * STATISTIC_BYTES
    core = Attention(
        name="cross_attn",
        batch=opts.batch,
        seq_q=opts.seq,
        seq_kv=memory.seq,
        heads=heads,
        kv_heads=kv_heads,
        qk_head_dim=head,
        v_head_dim=head,
        causal=False,
        dtype="bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype,
    )
    saves = (
        activation("cross.q", queries, Region.FEATURE, "attention"),
        activation("cross.k", keys, Region.FEATURE, "attention"),
        activation("cross.v", keys, Region.FEATURE, "attention"),
        activation("cross.out", queries, Region.FEATURE, "core_attn"),
        Tensor(name="cross.statistics", bytes=statistics, region=Region.FEATURE, origin="core_attn"),
    )
    return flash_attention(core, module="core_attn", saves=saves)


def bridge(model: ModelSpec, opts: GraphOptions, look_up: LayerGraph) -> tuple[Node, ...]:
    """Before the first decoder layer: the encoder's last norm, and the look-up of the decoder's tokens.

    The look-up's weights are those of the encoder's.
    """
    return (
        norm(model, opts.of_encoder, "encoder_norm"),
        *(replace(node, parameters=0.0, replicated_parameters=0.0) for node in look_up.nodes),
    )


def patch_embedding(model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """Patches projected to the hidden size, a class token, learned positions; images need no gradient."""
    inputs = model.num_channels * model.patch_size**2
    patch_count = (model.image_size // model.patch_size) ** 2
    size = opts.tokens * model.hidden_size * ACTIVATION_BYTES
    patches = linear(
        "patch_embedding",
        module="embedding",
        region=Region.SEQUENCE,
        tokens=opts.tokens,
        inputs=inputs,
        outputs=model.hidden_size,
        dtype="bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype,
        bias=True,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("patches", opts.tokens * inputs, Region.SEQUENCE, "input"),),
    )
    positions = elementwise(
        "positions",
        "residual",
        module="embedding",
        region=Region.SEQUENCE,
        forward=(2 * size, size),
        backward=(size, size),
        replicated_parameters=float((patch_count + 2) * model.hidden_size),
    )
    whole = replace(
        patches,
        input_gradient=(),
        boundary_bytes=0.0,
        parameters=0.0,
        replicated_parameters=patches.parameters,
    )
    return LayerGraph(kind="patch embedding", nodes=(whole, positions))


def masked_transform(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """BERT's way to its masked-language-model logits: a dense layer, GELU and a norm, on every rank."""
    elements = float(opts.tokens * model.hidden_size)
    dense = linear(
        "mlm_dense",
        module="head",
        region=Region.SEQUENCE,
        tokens=opts.tokens,
        inputs=model.hidden_size,
        outputs=model.hidden_size,
        dtype="bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype,
        bias=True,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("mlm.input", opts.tokens * model.hidden_size, Region.SEQUENCE, "layernorm"),),
    )
    kept = Tensor(
        name="mlm.output", bytes=elements * opts.fusion.activation.kept, region=Region.SEQUENCE, origin="head"
    )
    return (
        replace(dense, boundary_bytes=0.0, parameters=0.0, replicated_parameters=dense.parameters),
        fused(
            "mlm_activation",
            opts.fusion.activation,
            elements,
            module="head",
            region=Region.SEQUENCE,
            saves=(kept,),
        ),
        norm(model, opts, "mlm_norm"),
    )


def classifier(model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """Final norm, and the classes of each sequence's class token."""
    size = opts.batch * model.num_labels * ACTIVATION_BYTES
    dense = linear(
        "classifier",
        module="head",
        region=Region.SEQUENCE,
        tokens=opts.batch,
        inputs=model.hidden_size,
        outputs=model.num_labels,
        dtype="bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype,
        bias=True,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("classifier.input", opts.batch * model.hidden_size, Region.SEQUENCE, "layernorm"),),
    )
    loss = MemoryBound(name="cross_entropy", kind="cross_entropy", read_bytes=2 * size, write_bytes=size)
    gradient = replace(loss, name="cross_entropy.backward", read_bytes=size)
    return LayerGraph(
        kind="classifier",
        nodes=(
            norm(model, opts, "final_norm"),
            replace(dense, boundary_bytes=0.0, parameters=0.0, replicated_parameters=dense.parameters),
            Node(forward=loss, module="head", region=Region.SEQUENCE, input_gradient=(gradient,)),
        ),
    )
