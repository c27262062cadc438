"""Closed-form parameter counts, by part of the model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from simulator.graph.blocks import (
    Block,
    attention_weights,
    expert_weights,
    expert_width,
    layer_blocks,
    mamba_inner_size,
    mamba_weights,
    mlp_weights,
    prediction_blocks,
    router_weights,
    shared_expert_weights,
    shared_expert_width,
)
from simulator.graph.operator_graph import graph_parameters
from simulator.spec.model import ModelSpec

MAMBA_CONV_KERNEL = 4  # taps of the causal convolution; the same in every Mamba-2 model so far


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Elements of a model's weights, whole (not divided over ranks).

    ``mtp`` is the multi-token-prediction module without the embedding and head it shares with the model;
    publishers leave it out of a model's size. A tied head counts once, as the embedding.
    """

    embedding: int = 0  # tokens and learned positions
    attention: int = 0
    mlp: int = 0  # dense feed-forward layers
    experts: int = 0  # routed experts, all of them
    shared_experts: int = 0  # shared experts and latent projections
    router: int = 0
    mamba: int = 0
    norms: int = 0
    head: int = 0
    mtp: int = 0
    inactive: int = 0  # routed experts that a token does not visit
    operators: int = 0  # of an operator graph

    @property
    def without_mtp(self) -> int:
        """The size that publishers print."""
        return self.total - self.mtp

    @property
    def total(self) -> int:
        """Every parameter that is trained."""
        body = self.attention + self.mlp + self.experts + self.shared_experts + self.router + self.mamba
        return self.embedding + body + self.norms + self.head + self.mtp + self.operators

    @property
    def active(self) -> int:
        """Parameters that one token uses, embedding and head included, MTP not."""
        return self.without_mtp - self.inactive


def count_parameters(model: ModelSpec) -> ParameterCount:
    """Parameters of ``model`` by part.

    Covers dense, GQA, MLA, expert (shared, latent, interleaved) and Mamba-2 hybrid models. A router's
    load-balancing bias is a buffer, not a parameter, and is left out; the unpadded vocabulary is counted.
    """
    if model.layers:
        return ParameterCount(operators=graph_parameters(model))
    h = model.hidden_size
    blocks = Counter(block for layer in layer_blocks(model) for block in layer)
    expert = expert_weights(model) + _biases(model, expert_width(model))
    positions = model.max_position_embeddings if model.position_embedding == "learned" else 0
    norm = h * (2 if model.norm == "layernorm" else 1)
    if model.image_size:
        return _vision(model, blocks, norm)
    attention = blocks["attention"] + blocks["bidirectional"] + blocks["cross"]
    ends = 2 if model.num_encoder_layers else 1  # final norms
    transform = h * h + h + norm if model.is_encoder else 0  # of BERT's masked-language-model head
    return ParameterCount(
        embedding=(model.vocab_size + positions + (model.type_vocab_size if positions else 0)) * h,
        attention=attention * _attention(model),
        mlp=blocks["mlp"] * _mlp(model),
        experts=blocks["experts"] * model.num_experts * expert,
        shared_experts=blocks["experts"] * _shared_experts(model),
        router=blocks["experts"] * _router(model),
        mamba=blocks["mamba"] * _mamba(model),
        norms=(blocks.total() + ends) * norm,
        head=transform + (0 if model.tie_word_embeddings else model.vocab_size * h),
        mtp=model.num_nextn_predict_layers * _prediction_layer(model, norm),
        inactive=blocks["experts"] * (model.num_experts - model.num_experts_per_tok) * expert,
    )


def _vision(model: ModelSpec, blocks: Counter[Block], norm: int) -> ParameterCount:
    """A vision transformer: patches, class token and positions for the embedding, classes for the head."""
    h, patches = model.hidden_size, (model.image_size // model.patch_size) ** 2
    pixels = model.num_channels * model.patch_size**2
    return ParameterCount(
        embedding=(pixels + 1) * h + (patches + 2) * h,
        attention=blocks["bidirectional"] * _attention(model),
        mlp=blocks["mlp"] * _mlp(model),
        norms=(blocks.total() + 1) * norm,
        head=(h + 1) * model.num_labels,
    )


def _attention(model: ModelSpec) -> int:
    small = 2 * model.head_dim if model.qk_norm else 0
    small += model.num_attention_heads if model.attention_sinks else 0
    if model.attention_type == "mla":
        small += model.q_lora_rank + model.kv_lora_rank  # the norms of the low-rank paths
    elif model.linear_bias:
        small += (
            model.num_attention_heads + 2 * model.num_key_value_heads
        ) * model.head_dim + model.hidden_size
    return attention_weights(model) + small


def _mlp(model: ModelSpec) -> int:
    return mlp_weights(model) + _biases(model, model.intermediate_size)


def _shared_experts(model: ModelSpec) -> int:
    width = shared_expert_width(model)
    return shared_expert_weights(model) + (_biases(model, width) if width else 0)


def _router(model: ModelSpec) -> int:
    return router_weights(model) + (model.num_experts if model.linear_bias else 0)


def _biases(model: ModelSpec, inner: int) -> int:
    """Biases of one feed-forward block."""
    return (2 if model.gated_mlp else 1) * inner + model.hidden_size if model.linear_bias else 0


def _mamba(model: ModelSpec) -> int:
    """Projections, convolution with bias, A, D and dt bias per head, gated norm (arXiv 2405.21060)."""
    inner = mamba_inner_size(model)
    convolved = inner + 2 * model.mamba_n_groups * model.ssm_state_size
    return mamba_weights(model) + convolved * (MAMBA_CONV_KERNEL + 1) + 3 * model.mamba_num_heads + inner


def _prediction_layer(model: ModelSpec, norm: int) -> int:
    """A layer, the projection of [hidden, embedding] to hidden, norms of both inputs and of the end."""
    blocks = prediction_blocks(model)
    return sum(_block(model, block) + norm for block in blocks) + 2 * model.hidden_size**2 + 3 * norm


def _block(model: ModelSpec, block: Block) -> int:
    if block == "attention":
        return _attention(model)
    if block == "mlp":
        return _mlp(model)
    if block == "mamba":
        return _mamba(model)
    expert = expert_weights(model) + _biases(model, expert_width(model))
    return model.num_experts * expert + _shared_experts(model) + _router(model)
