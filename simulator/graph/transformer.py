"""The layers of a GPT- or Llama-like decoder, whole: one microbatch, before any split.

Which memory-bound kernels run, and what they read and write, depends on the software stack
(:mod:`simulator.graph.fusion`); `T` is the number of tokens, `h` the hidden size, activations take 2 bytes.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph import joint_projection
from simulator.graph.fusion import fused
from simulator.graph.layer import (
    LayerGraph,
    Node,
    Region,
    Tensor,
    bias_gradient,
    elementwise,
    flash_attention,
    linear,
    product,
)
from simulator.graph.operators import Attention
from simulator.graph.options import GraphOptions
from simulator.spec.model import ModelSpec

ACTIVATION_BYTES = 2.0
MASK_BYTES = 1.0  # dropout masks are kept as one byte per element (Korthikanti 2022, section 4)
STATISTIC_BYTES = 4.0  # softmax statistics are fp32


def activation(
    name: str, elements: float, region: Region, origin: str, width: float = ACTIVATION_BYTES
) -> Tensor:
    """A kept activation of so many elements."""
    return Tensor(name=name, bytes=elements * width, region=region, origin=origin)


def norm(model: ModelSpec, opts: GraphOptions, name: str) -> Node:
    """Layer or RMS norm of the residual stream."""
    passes = opts.fusion.layernorm if model.norm == "layernorm" else opts.fusion.rmsnorm
    elements = float(opts.tokens * model.hidden_size)
    weights = model.hidden_size * (2 if model.norm == "layernorm" else 1)
    kept = elements * passes.kept
    return fused(
        name,
        passes,
        elements,
        module="layernorm",
        region=Region.SEQUENCE,
        replicated_parameters=float(weights),
        saves=(Tensor(name=f"{name}.input", bytes=kept, region=Region.SEQUENCE, origin="residual"),),
    )


def residual(model: ModelSpec, opts: GraphOptions, name: str, *, biased: bool = True) -> Node:
    """Adds the branch to the residual stream, after dropout; ``biased``: with the bias of the row-parallel
    layer before it, where the model has biases.
    """
    passes = opts.fusion.dropout if model.hidden_dropout else opts.fusion.residual
    elements = float(opts.tokens * model.hidden_size)
    mask = elements * passes.kept
    biased = biased and model.linear_bias
    return fused(
        name,
        passes,
        elements,
        module="residual",
        region=Region.SEQUENCE,
        weight_gradient=(bias_gradient(name, elements * ACTIVATION_BYTES),) if biased else (),
        replicated_parameters=float(model.hidden_size) if biased else 0.0,
        saves=(Tensor(name=f"{name}.mask", bytes=mask, region=Region.SEQUENCE, origin="residual"),)
        if mask
        else (),
    )


def _qkv(model: ModelSpec, opts: GraphOptions) -> Node:
    query, key = (n * model.head_dim for n in (model.num_attention_heads, model.num_key_value_heads))
    return linear(
        "qkv",
        module="attention",
        region=Region.COLUMN,
        tokens=opts.tokens,
        inputs=model.hidden_size,
        outputs=query + 2 * key,
        products=(query, key, key),
        dtype=opts.dtype,
        bias=model.linear_bias,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("qkv.input", opts.tokens * model.hidden_size, Region.SEQUENCE, "layernorm"),),
    )


def rope(model: ModelSpec, opts: GraphOptions) -> Node:
    """Rotates queries and keys."""
    heads = model.num_attention_heads + model.num_key_value_heads
    elements = float(opts.tokens * heads * model.head_dim)
    passes = opts.fusion.scaled_rope if model.yarn else opts.fusion.rope
    return fused("rope", passes, elements, module="attention", region=Region.FEATURE)


def _repeated_heads(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Keys and values copied to every query head of their group; backward sums over the group."""
    if not opts.fusion.repeat_kv or model.num_key_value_heads == model.num_attention_heads:
        return ()
    few, many = (
        2 * opts.tokens * heads * model.head_dim * ACTIVATION_BYTES
        for heads in (model.num_key_value_heads, model.num_attention_heads)
    )
    copy = elementwise(
        "repeat_kv",
        "copy",
        module="attention",
        region=Region.FEATURE,
        forward=(few, many),
        backward=(many, few),
        kernels=(2, 2),
    )
    return (copy,)


def _qk_norm(model: ModelSpec, opts: GraphOptions) -> Node:
    """RMS norm of every query and key head, before the rotation."""
    passes, heads = opts.fusion.rmsnorm, model.num_attention_heads + model.num_key_value_heads
    elements = float(opts.tokens * heads * model.head_dim)
    kept = elements * passes.kept
    return fused(
        "qk_norm",
        passes,
        elements,
        module="attention",
        region=Region.FEATURE,
        operands=2,
        replicated_parameters=2.0 * model.head_dim,
        saves=(Tensor(name="qk_norm.input", bytes=kept, region=Region.FEATURE, origin="attention"),),
    )


def _key_heads(model: ModelSpec, opts: GraphOptions) -> int:
    """Of the keys and values that the core reads and ranks pass round: those of every query where copied."""
    return model.num_attention_heads if opts.fusion.repeat_kv else model.num_key_value_heads


def _heads(model: ModelSpec, opts: GraphOptions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q, K, V and the attention output, as kept for the backward pass."""
    q = opts.tokens * model.num_attention_heads * model.head_dim
    kv = opts.tokens * _key_heads(model, opts) * model.head_dim
    return (
        activation("q", q, Region.FEATURE, "attention"),
        activation("k", kv, Region.FEATURE, "attention"),
        activation("v", kv, Region.FEATURE, "attention"),
        activation("proj.input", q, Region.FEATURE, "core_attn"),
    )


def _flash_core(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    q, k, v, out = _heads(model, opts)
    statistics = Tensor(
        name="softmax.statistics",
        bytes=opts.tokens * model.num_attention_heads * STATISTIC_BYTES,
        region=Region.FEATURE,
        origin="core_attn",
    )
    core = Attention(
        name="core_attn",
        batch=opts.batch,
        seq_q=opts.seq,
        seq_kv=opts.seq,
        heads=model.num_attention_heads,
        kv_heads=_key_heads(model, opts),
        qk_head_dim=model.head_dim,
        v_head_dim=model.head_dim,
        causal=opts.causal,
        window=opts.window if opts.window < opts.seq else 0,
        mask=opts.mask,
        dtype="bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype,
    )
    node = flash_attention(core, module="core_attn", saves=(q, k, v, out, statistics))
    sinks = float(model.num_attention_heads) if model.attention_sinks else 0.0
    return (replace(node, parameters=sinks),)


def _unfused_core(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Scores, scale-mask-softmax, dropout, weighted sum, each its own kernel over the full square."""
    q, k, v, _ = _heads(model, opts)
    heads = opts.batch * model.num_attention_heads
    square = float(heads) * opts.seq * opts.seq
    size, mask = square * ACTIVATION_BYTES, square * MASK_BYTES
    probabilities = Tensor(name="softmax.output", bytes=size, region=Region.FEATURE, origin="core_attn")
    passes = opts.fusion.softmax
    wide = square * passes.kept - size
    in_fp32 = Tensor(name="softmax.fp32", bytes=wide, region=Region.FEATURE, origin="core_attn")
    dims = {"module": "core_attn", "batch": heads, "dtype": opts.dtype}
    nodes = [
        product("scores", m=opts.seq, n=opts.seq, k=model.head_dim, saves=(q, k), **dims),  # type: ignore[arg-type]
        fused(
            "softmax",
            passes,
            square,
            module="core_attn",
            region=Region.FEATURE,
            saves=(probabilities, *((in_fp32,) if wide else ())),
        ),
    ]
    weights = probabilities
    if model.attention_dropout:
        weights = Tensor(
            name="attention_dropout.output", bytes=size, region=Region.FEATURE, origin="core_attn"
        )
        nodes.append(
            elementwise(
                "attention_dropout",
                "dropout",
                module="core_attn",
                region=Region.FEATURE,
                forward=(size, size + mask),
                backward=(size + mask, size),
                saves=(
                    Tensor(
                        name="attention_dropout.mask", bytes=mask, region=Region.FEATURE, origin="core_attn"
                    ),
                ),
            )
        )
    nodes.append(
        product("context", m=opts.seq, n=model.head_dim, k=opts.seq, saves=(weights, v), **dims)  # type: ignore[arg-type]
    )
    nodes.append(_head_permutation(model, opts))
    return tuple(nodes)


def _head_permutation(model: ModelSpec, opts: GraphOptions) -> Node:
    """Batched GEMMs give heads first; the projection wants them side by side.

    Backward also joins dQ, dK and dV.
    """
    q = opts.tokens * model.num_attention_heads * model.head_dim * ACTIVATION_BYTES
    qkv = q + 2 * opts.tokens * model.num_key_value_heads * model.head_dim * ACTIVATION_BYTES
    return elementwise(
        "permute_heads",
        "transpose",
        module="core_attn",
        region=Region.FEATURE,
        forward=(q, q),
        backward=(q + qkv, q + qkv),
        kernels=(1, 2),
    )


def projection(model: ModelSpec, opts: GraphOptions, width: int) -> Node:
    """From ``width`` features of all heads back to the residual stream."""
    return linear(
        "proj",
        module="attention",
        region=Region.ROW,
        tokens=opts.tokens,
        inputs=width,
        outputs=model.hidden_size,
        dtype=opts.dtype,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("proj.input", opts.tokens * width, Region.FEATURE, "core_attn"),),
    )


def attention_block(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Norm, QKV, rotary, core, projection, residual."""
    core = _flash_core(model, opts) if opts.flash else _unfused_core(model, opts)
    rotary = (rope(model, opts),) if model.position_embedding == "rope" else ()
    return (
        norm(model, opts, "input_norm"),
        _qkv(model, opts),
        *joint_projection.parts(model, opts),
        *((_qk_norm(model, opts),) if model.qk_norm else ()),
        *rotary,
        *_repeated_heads(model, opts),
        *core,
        projection(model, opts, width=model.num_attention_heads * model.head_dim),
        residual(model, opts, "attention_residual"),
    )


def mlp_block(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Norm, FC1, activation, FC2, residual. A gated MLP's FC1 computes gate and up projection in one GEMM."""
    width, gates = model.intermediate_size, 2 if model.gated_mlp else 1
    passes = opts.fusion.gated if model.gated_mlp else opts.fusion.activation
    elements = float(opts.tokens * width)
    kept = elements * passes.kept
    shared = {
        "module": "mlp",
        "tokens": opts.tokens,
        "dtype": opts.dtype,
        "grad_bytes": opts.grad_bytes,
        "fused_accumulation": opts.fused_accumulation,
    }
    return (
        norm(model, opts, "mlp_norm"),
        *_joined_gate(model, opts),
        linear(
            "fc1",
            region=Region.COLUMN,
            bias=model.linear_bias,
            inputs=model.hidden_size,
            outputs=gates * width,
            products=(width,) * gates,
            saves=(activation("fc1.input", opts.tokens * model.hidden_size, Region.SEQUENCE, "layernorm"),),
            **shared,  # type: ignore[arg-type]
        ),
        fused(
            "activation",
            passes,
            elements,
            module="mlp.activation",
            region=Region.FEATURE,
            saves=(Tensor(name="fc1.output", bytes=kept, region=Region.FEATURE, origin="mlp"),),
        ),
        linear(
            "fc2",
            region=Region.ROW,
            inputs=width,
            outputs=model.hidden_size,
            saves=(activation("fc2.input", opts.tokens * width, Region.FEATURE, "mlp.activation"),),
            **shared,  # type: ignore[arg-type]
        ),
        residual(model, opts, "mlp_residual"),
    )


def _joined_gate(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Backward of gate and up projection where they are two modules: the sum of their input gradients."""
    if opts.fusion.gate_join is None or not model.gated_mlp:
        return ()
    elements = float(opts.tokens * model.hidden_size)
    return (fused("gate_join", opts.fusion.gate_join, elements, module="mlp", region=Region.SEQUENCE),)


def dense_layer(model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """One dense transformer layer (pre-norm)."""
    return LayerGraph(
        kind="dense",
        nodes=(*attention_block(model, opts), *mlp_block(model, opts)),
        input_bytes=opts.tokens * model.hidden_size * ACTIVATION_BYTES,
    )
