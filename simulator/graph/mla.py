"""Multi-head latent attention, whole: low-rank projections, rope on a part of each head, core, output.

DeepSeek-V2 (arXiv 2405.04434), section 2.1; kernels and splits as in Megatron-LM's `MLASelfAttention`: the
projections down to the latent vectors are repeated by every tensor-parallel rank on its own tokens, those up
from them are column-parallel, so that a gather moves the latent vectors only.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import Node, Region, Tensor, elementwise, flash_attention, linear
from simulator.graph.operators import Attention
from simulator.graph.options import GraphOptions
from simulator.graph.transformer import (
    ACTIVATION_BYTES,
    STATISTIC_BYTES,
    activation,
    norm,
    projection,
    residual,
)
from simulator.spec.model import ModelSpec

UP = "attention.mla_up_proj"  # what recomputing `mla_up_proj` repeats: up-projections, rope, concatenation


def latent_attention_block(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Norm, query and key-value paths, core, projection, residual."""
    query = _low_rank_query(model, opts) if model.q_lora_rank else (_full_query(model, opts),)
    return (
        norm(model, opts, "input_norm"),
        *query,
        *_key_value(model, opts),
        _rope(model, opts),
        *_core(model, opts),
        projection(model, opts, width=model.num_attention_heads * model.v_head_dim),
        residual(model, opts, "attention_residual"),
    )


def _linear(
    name: str,
    model: ModelSpec,
    opts: GraphOptions,
    *,
    region: Region,
    module: str,
    inputs: int,
    outputs: int,
    saved: Tensor,
) -> Node:
    node = linear(
        name,
        module=module,
        region=region,
        tokens=opts.tokens,
        inputs=inputs,
        outputs=outputs,
        dtype=opts.dtype,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(saved,),
    )
    if region is Region.SEQUENCE:  # whole weights on every rank
        return replace(node, boundary_bytes=0.0, parameters=0.0, replicated_parameters=node.parameters)
    return node


def _input(model: ModelSpec, opts: GraphOptions) -> Tensor:
    return activation("qkv.input", opts.tokens * model.hidden_size, Region.SEQUENCE, "layernorm")


def _query_width(model: ModelSpec) -> int:
    return model.num_attention_heads * (model.qk_nope_head_dim + model.qk_rope_head_dim)


def _latent_norm(name: str, width: int, opts: GraphOptions) -> Node:
    size = opts.tokens * width * ACTIVATION_BYTES
    return elementwise(
        name,
        "norm",
        module="attention",
        region=Region.SEQUENCE,
        forward=(size, size),
        backward=(2 * size, size),
        kernels=(1, 2),
        replicated_parameters=float(width),
        saves=(activation(f"{name}.input", opts.tokens * width, Region.SEQUENCE, "attention"),),
    )


def _full_query(model: ModelSpec, opts: GraphOptions) -> Node:
    return _linear(
        "q_proj",
        model,
        opts,
        region=Region.COLUMN,
        module=UP,
        inputs=model.hidden_size,
        outputs=_query_width(model),
        saved=_input(model, opts),
    )


def _low_rank_query(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    rank = model.q_lora_rank
    down = _linear(
        "q_down",
        model,
        opts,
        region=Region.SEQUENCE,
        module="attention",
        inputs=model.hidden_size,
        outputs=rank,
        saved=_input(model, opts),
    )
    up = _linear(
        "q_up",
        model,
        opts,
        region=Region.COLUMN,
        module=UP,
        inputs=rank,
        outputs=_query_width(model),
        saved=activation("q_up.input", opts.tokens * rank, Region.SEQUENCE, "attention"),
    )
    return (down, _latent_norm("q_norm", rank, opts), up)


def _key_value(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """One product makes the latent vector and the keys' shared rope part; both are gathered for the heads."""
    rank, rope = model.kv_lora_rank, model.qk_rope_head_dim
    down = _linear(
        "kv_down",
        model,
        opts,
        region=Region.SEQUENCE,
        module="attention",
        inputs=model.hidden_size,
        outputs=rank + rope,
        saved=_input(model, opts),
    )
    up = _linear(
        "kv_up",
        model,
        opts,
        region=Region.COLUMN,
        module=UP,
        inputs=rank,
        outputs=model.num_attention_heads * (model.qk_nope_head_dim + model.v_head_dim),
        saved=activation("kv_up.input", opts.tokens * (rank + rope), Region.SEQUENCE, "attention"),
    )
    up = replace(up, boundary_bytes=opts.tokens * (rank + rope) * ACTIVATION_BYTES)
    return (down, _latent_norm("kv_norm", rank, opts), up)


def _rope(model: ModelSpec, opts: GraphOptions) -> Node:
    """Megatron-LM's fused kernels: rotates the queries' rope part in place; joins each key from its own
    part and the rotated shared one, and parts it from the values.
    """
    heads = opts.tokens * model.num_attention_heads * ACTIVATION_BYTES
    query = heads * model.qk_rope_head_dim
    up = heads * (model.qk_nope_head_dim + model.v_head_dim)
    shared = opts.tokens * model.qk_rope_head_dim * ACTIVATION_BYTES
    out = up + heads * model.qk_rope_head_dim
    return elementwise(
        "rope",
        "rope",
        module=UP,
        region=Region.FEATURE,
        forward=(query + up + shared, query + out),
        backward=(query + out, query + up + shared),
        kernels=(2, 2),
    )


def _core(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    heads, head = model.num_attention_heads, model.qk_nope_head_dim + model.qk_rope_head_dim
    q = activation("q", opts.tokens * heads * head, Region.FEATURE, UP)
    k = activation("k", opts.tokens * heads * head, Region.FEATURE, UP)
    v = activation("v", opts.tokens * heads * model.v_head_dim, Region.FEATURE, UP)
    out = activation("proj.input", opts.tokens * heads * model.v_head_dim, Region.FEATURE, "core_attn")
    statistics = Tensor(
        name="softmax.statistics",
        bytes=opts.tokens * heads * STATISTIC_BYTES,
        region=Region.FEATURE,
        origin="core_attn",
    )
    core = Attention(
        name="core_attn",
        batch=opts.batch,
        seq_q=opts.seq,
        seq_kv=opts.seq,
        heads=heads,
        kv_heads=heads,
        qk_head_dim=head,
        v_head_dim=model.v_head_dim,
        causal=True,
        mask=opts.mask,
        dtype="bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype,
    )
    return (flash_attention(core, module="core_attn", saves=(q, k, v, out, statistics)),)
