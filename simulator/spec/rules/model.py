"""Rules of a model by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.model import ModelSpec
from simulator.spec.rules.violation import Violation, near_divisors


def head_size(model: ModelSpec) -> Iterator[Violation]:
    """Heads share the hidden size evenly unless ``head_dim`` says otherwise."""
    heads, hidden = model.num_attention_heads, model.hidden_size
    if hidden % heads and model.head_dim == hidden // heads:
        rule = f"must divide hidden_size ({hidden}) where head_dim is not given"
        yield Violation("num_attention_heads", heads, rule, near_divisors(hidden, heads))


def grouped_queries(model: ModelSpec) -> Iterator[Violation]:
    """Each key-value head serves the same number of query heads."""
    heads, kv = model.num_attention_heads, model.num_key_value_heads
    if heads % kv:
        rule = f"must divide num_attention_heads ({heads})"
        yield Violation("num_key_value_heads", kv, rule, near_divisors(heads, kv))


def routed_experts(model: ModelSpec) -> Iterator[Violation]:
    """A token goes to some of the experts."""
    per_token, experts = model.num_experts_per_tok, model.num_experts
    if per_token > experts:
        yield Violation(
            "num_experts_per_tok", per_token, f"must be at most num_experts ({experts})", str(experts)
        )
    if experts and not per_token:
        yield Violation("num_experts_per_tok", per_token, f"must be 1 to num_experts ({experts})", "1")
    if model.first_k_dense_replace > model.num_hidden_layers:
        rule = f"must be at most num_hidden_layers ({model.num_hidden_layers})"
        yield Violation(
            "first_k_dense_replace", model.first_k_dense_replace, rule, str(model.num_hidden_layers)
        )


def latent_attention(model: ModelSpec) -> Iterator[Violation]:
    """Multi-head latent attention needs its rank and head sizes."""
    if model.attention_type == "mla":
        for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
            if not getattr(model, key):
                yield Violation(key, 0, "must be given where attention_type is mla")


def mamba_layers(model: ModelSpec) -> Iterator[Violation]:
    """A hybrid has a letter for every layer, and sizes of its Mamba layers."""
    pattern = model.hybrid_layer_pattern
    if not pattern:
        return
    if set(pattern) - set("M*E-") or len(pattern) != model.num_hidden_layers:
        rule = f"must hold a letter M, *, E or - for each of {model.num_hidden_layers} layers"
        yield Violation("hybrid_layer_pattern", pattern, rule)
    for key in ("mamba_num_heads", "mamba_head_dim", "ssm_state_size") if "M" in pattern else ():
        if not getattr(model, key):
            yield Violation(key, 0, "must be given where the pattern has Mamba layers (M)")
    if model.mamba_num_heads % model.mamba_n_groups:
        rule = f"must divide mamba_num_heads ({model.mamba_num_heads})"
        near = near_divisors(model.mamba_num_heads, model.mamba_n_groups)
        yield Violation("mamba_n_groups", model.mamba_n_groups, rule, near)


MODEL_RULES: tuple[Callable[[ModelSpec], Iterator[Violation]], ...] = (
    head_size,
    grouped_queries,
    routed_experts,
    latent_attention,
    mamba_layers,
)
