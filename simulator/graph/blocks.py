"""What a model's layers are made of: its blocks, and the weights of their matrix products.

A *block* is what sits between two additions to the residual stream. :mod:`simulator.graph.parameters` adds
biases and norms to these weights; :mod:`simulator.graph.flops` multiplies tokens by them. `h` is the hidden
size.
"""

from __future__ import annotations

from typing import Literal

from simulator.spec.model import ModelSpec

Block = Literal["attention", "mlp", "experts", "mamba", "bidirectional", "cross"]

PATTERN: dict[str, Block] = {"M": "mamba", "*": "attention", "E": "experts", "-": "mlp"}


def layer_blocks(model: ModelSpec) -> tuple[tuple[Block, ...], ...]:
    """The blocks of every layer, in order. Hybrids have one block per layer, decoders that see an encoder
    three, all others two.
    """
    if model.hybrid_layer_pattern:
        return tuple((PATTERN[letter],) for letter in model.hybrid_layer_pattern)
    if model.bidirectional_layers:
        encoder: tuple[Block, ...] = ("bidirectional", "mlp")
        decoder: tuple[Block, ...] = ("attention", "cross", "mlp")
        decoders = model.num_hidden_layers - model.bidirectional_layers
        return (encoder,) * model.bidirectional_layers + (decoder,) * decoders
    return tuple(
        ("attention", "experts" if _has_experts(model, layer) else "mlp")
        for layer in range(model.num_hidden_layers)
    )


def prediction_blocks(model: ModelSpec) -> tuple[Block, ...]:
    """The blocks of one multi-token-prediction layer.

    It repeats the last layer (DeepSeek-V3, arXiv 2412.19437 section 2.2); in Mamba hybrids it is one
    attention and one expert layer (``mtp_hybrid_override_pattern: "*E"`` of the Nemotron 3 configurations).
    """
    if model.hybrid_layer_pattern:
        return ("attention", "experts" if model.is_moe else "mlp")
    return layer_blocks(model)[-1]


def _has_experts(model: ModelSpec, layer: int) -> bool:
    """Dense layers first, then experts in every ``moe_layer_freq``-th (Llama 4: the second, fourth…)."""
    return model.is_moe and layer >= model.first_k_dense_replace and (layer + 1) % model.moe_layer_freq == 0


def attention_weights(model: ModelSpec) -> int:
    """Weights of the projections around attention: QKV and output, or MLA's low-rank chain."""
    h, a = model.hidden_size, model.num_attention_heads
    if model.attention_type != "mla":
        return h * (a + 2 * model.num_key_value_heads) * model.head_dim + a * model.head_dim * h
    query_dim = a * (model.qk_nope_head_dim + model.qk_rope_head_dim)
    query = model.q_lora_rank * (h + query_dim) if model.q_lora_rank else h * query_dim
    down = h * (model.kv_lora_rank + model.qk_rope_head_dim)
    up = model.kv_lora_rank * a * (model.qk_nope_head_dim + model.v_head_dim)
    return query + down + up + a * model.v_head_dim * h


def mlp_weights(model: ModelSpec) -> int:
    """Weights of a dense feed-forward block."""
    return _feed_forward(model, model.hidden_size, model.intermediate_size)


def expert_weights(model: ModelSpec) -> int:
    """Weights of one routed expert; it works in the latent space where the model has one."""
    return _feed_forward(model, model.moe_latent_size or model.hidden_size, expert_width(model))


def expert_width(model: ModelSpec) -> int:
    """FFN width of one routed expert."""
    return model.moe_intermediate_size or model.intermediate_size


def shared_expert_width(model: ModelSpec) -> int:
    """FFN width of all shared experts together."""
    return model.moe_shared_expert_intermediate_size or model.n_shared_experts * expert_width(model)


def shared_expert_weights(model: ModelSpec) -> int:
    """What every token uses beside its routed experts: shared experts and the way to the latent space."""
    latent = 2 * model.hidden_size * model.moe_latent_size
    return _feed_forward(model, model.hidden_size, shared_expert_width(model)) + latent


def router_weights(model: ModelSpec) -> int:
    """Weights of the gate that scores the experts."""
    return model.hidden_size * model.num_experts


def mamba_inner_size(model: ModelSpec) -> int:
    """Width of a Mamba-2 mixer: heads times head size."""
    return model.mamba_num_heads * model.mamba_head_dim


def mamba_weights(model: ModelSpec) -> int:
    """A Mamba-2 mixer's input projection (x, z, B, C, dt) and output projection (arXiv 2405.21060)."""
    inner = mamba_inner_size(model)
    projected = 2 * inner + 2 * model.mamba_n_groups * model.ssm_state_size + model.mamba_num_heads
    return model.hidden_size * projected + inner * model.hidden_size


def _feed_forward(model: ModelSpec, width: int, inner: int) -> int:
    return (3 if model.gated_mlp else 2) * width * inner
