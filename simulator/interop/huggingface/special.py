"""Keys of a ``config.json`` that need more than a new name: windows, biases, shapes said in another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from simulator.interop.huggingface.dialects import PARALLEL
from simulator.interop.huggingface.keys import ACTIVATION_KEYS, ACTIVATIONS
from simulator.interop.imported import Fate, Imported, shown
from simulator.spec.errors import Problem, nearest


@dataclass(slots=True, kw_only=True)
class Reading:
    """A ``config.json`` under way to a model: its keys, the fields found so far, what is wrong."""

    file: str
    config: dict[str, Any]
    """What the file and, where it is silent, the family's configuration class say."""
    given: frozenset[str]
    """The keys of the file."""
    fields: dict[str, Any]
    imported: Imported
    problems: list[Problem] = field(default_factory=list)

    def map(self, key: str, field_name: str, value: Any) -> None:
        """Takes over a value as a field of the model."""
        self.fields[field_name] = value
        written = f"{key} {shown(self.config[key])}" if key in self.config else f"{field_name} {shown(value)}"
        fate: Fate = "mapped" if key in self.given else "implied"
        self.imported.note(fate, written, f"{field_name} {shown(value)}")

    def near(self, key: str, meaning: str) -> None:
        """Notes what is entered approximately."""
        self.imported.note("approximated", f"{key} {shown(self.config.get(key))}", meaning)

    def ignore(self, key: str, reason: str) -> None:
        """Notes what has no meaning here."""
        self.imported.note("ignored", key, reason)

    def refuse(self, key: str, rule: str, suggestion: str = "") -> None:
        """Notes what cannot be said."""
        self.problems.append(
            Problem(
                file=self.file,
                key_path=key,
                value=self.config.get(key),
                rule=rule,
                suggestion=suggestion,
            )
        )


Special: TypeAlias = Callable[[Reading, str, Any], None]


def _activation(reading: Reading, key: str, value: Any) -> None:
    found = ACTIVATIONS.get(str(value))
    if found:
        reading.map(key, "hidden_act", found)
    else:
        reading.refuse(key, "is an activation that is not modelled", nearest(str(value), ACTIVATIONS))


def _some_biases(reading: Reading, key: str, value: Any) -> None:
    if reading.fields.get("linear_bias") or not value:
        reading.ignore(
            key, "as the whole family: linear_bias " + shown(bool(reading.fields.get("linear_bias")))
        )
    else:
        reading.near(key, "none: h of h² weights")


def _all_biases(reading: Reading, key: str, value: Any) -> None:
    reading.map(key, "linear_bias", not value if key == "no_bias" else bool(value))


def _window(reading: Reading, key: str, value: Any) -> None:
    """``sliding_window`` counts unless ``use_sliding_window`` is false or every layer's type is full."""
    config = reading.config
    types = config.get("layer_types") or ()
    if not value or config.get("use_sliding_window") is False or set(types) == {"full_attention"}:
        reading.ignore(key, "no layer has a window")
    elif config.get("use_sliding_window") and config.get("max_window_layers"):
        reading.refuse("use_sliding_window", "windows in the layers after max_window_layers are not modelled")
    else:
        reading.map(key, "sliding_window", value)


def _layer_types(reading: Reading, key: str, value: Any) -> None:
    """A list of ``full_attention`` and ``sliding_attention``: every n-th layer is full, or none is."""
    kinds = set(value) - {"full_attention", "sliding_attention", "chunked_attention"}
    if kinds:
        reading.refuse(key, f"layers of {' and '.join(sorted(kinds))} are not modelled")
        return
    full = [number + 1 for number, kind in enumerate(value) if kind == "full_attention"]
    if not full or len(full) == len(value):
        reading.ignore(key, "all layers are alike")
        return
    if "chunked_attention" in value:
        reading.near(key, "full attention: the same for sequences up to attention_chunk_size")
        return
    period = full[0]
    if full != list(range(period, len(value) + 1, period)):
        reading.refuse(key, "must be a window in all but every n-th layer", "sliding, …, full, repeated")
        return
    reading.map(key, "sliding_window_period", period)


def _pattern(reading: Reading, key: str, value: Any) -> None:
    if not reading.config.get("layer_types"):
        reading.map(key, "sliding_window_period", value)


def _dense_layers(reading: Reading, key: str, value: Any) -> None:
    """``mlp_only_layers`` as leading dense layers."""
    if not value:
        reading.ignore(key, "no layer is dense")
    elif value == list(range(len(value))):
        reading.map(key, "first_k_dense_replace", len(value))
    else:
        reading.refuse(key, "must be the first layers: others are not modelled")


def _router_bias(reading: Reading, key: str, value: Any) -> None:
    reading.map(key, "expert_bias", value == "noaux_tc")


def _partial_rotary(reading: Reading, key: str, value: Any) -> None:
    if value in (None, 1, 1.0):
        reading.ignore(key, "all of each head is rotated")
    else:
        reading.near(key, "rotation of whole heads: a per mille of a layer")


def _parallel(reading: Reading, key: str, value: Any) -> None:
    if value:
        reading.near(key, f"{PARALLEL[0]}, entered as {PARALLEL[1]}")
    else:
        reading.ignore(key, "one block after the other")


def _alibi(reading: Reading, key: str, value: Any) -> None:
    if value:
        reading.map(key, "position_embedding", "alibi")
    else:
        reading.ignore(key, "positions as the family has them")


def _one_key_head(reading: Reading, key: str, value: Any) -> None:
    """Falcon's ``multi_query``; its newer architecture counts ``num_kv_heads`` instead."""
    if value and not reading.config.get("new_decoder_architecture"):
        reading.map(key, "num_key_value_heads", 1)
    else:
        reading.ignore(key, "num_kv_heads says how many")


def _key_heads(reading: Reading, key: str, value: Any) -> None:
    if reading.config.get("multi_query") and not reading.config.get("new_decoder_architecture"):
        reading.ignore(key, "multi_query has one")
    else:
        reading.map(key, "num_key_value_heads", value)


def _expansion(reading: Reading, key: str, value: Any) -> None:
    reading.map(key, "intermediate_size", int(value * reading.config.get("d_model", 0)))


def _mpt_attention(reading: Reading, key: str, value: Any) -> None:
    if value.get("alibi"):
        reading.map(key, "position_embedding", "alibi")
    if value.get("kv_n_heads"):
        reading.map(key, "num_key_value_heads", value["kv_n_heads"])
    if value.get("attn_pdrop"):
        reading.map(key, "attention_dropout", value["attn_pdrop"])
    if value.get("qk_ln"):
        reading.map(key, "qk_norm", True)


def _chunks(reading: Reading, key: str, value: Any) -> None:
    if value:
        reading.near(key, f"full attention: the same for sequences up to {value} tokens")


def _capping(reading: Reading, key: str, value: Any) -> None:
    if value:
        reading.near(key, "no capping: a few instructions inside a kernel")


def _other_tower(reading: Reading, key: str, value: Any) -> None:
    reading.near(key, "left out: the language model alone")


def _same_width(reading: Reading, key: str, value: Any) -> None:
    if value == reading.config.get("hidden_size"):
        reading.ignore(key, "as hidden_size")
    else:
        reading.refuse(key, "must be hidden_size: an embedding of another width is not modelled")


def _must_be(*allowed: Any, what: str) -> Special:
    """A key that is fine at its usual value and says, at others, what is not imported."""

    def check(reading: Reading, key: str, value: Any) -> None:
        if value in allowed:
            reading.ignore(key, "at its usual value")
        else:
            reading.refuse(key, f"{what} is not imported", shown(allowed[0]))

    return check


def _two_sides(reading: Reading, key: str, value: Any) -> None:
    """T5 counts its encoder's layers apart; others are not imported."""
    if not value or "feed_forward_proj" in reading.config:
        reading.ignore(key, "as the family is")
    else:
        reading.refuse(key, "a model of encoder and decoder is not imported", "false")


def _encoder_layers(reading: Reading, key: str, value: Any) -> None:
    """T5's ``num_layers`` are the encoder's; the decoder has as many, unless ``num_decoder_layers`` says."""
    if "feed_forward_proj" not in reading.config:
        reading.refuse(key, "is not known in this family", "num_hidden_layers")
        return
    reading.map(key, "num_encoder_layers", value)
    reading.map(key, "num_hidden_layers", value + (reading.config.get("num_decoder_layers") or value))


def _positions(reading: Reading, key: str, value: Any) -> None:
    if "feed_forward_proj" in reading.config:
        reading.ignore(key, "relative positions have no end")
    else:
        reading.map(key, "max_position_embeddings", value)


def _feed_forward(reading: Reading, key: str, value: Any) -> None:
    """T5's ``gated-gelu`` or ``relu``."""
    gate, _, act = str(value).rpartition("-")
    if act not in ACTIVATIONS or gate not in ("", "gated"):
        reading.refuse(key, "is an activation that is not modelled", "relu or gated-gelu")
        return
    reading.map(key, "gated_mlp", bool(gate))
    reading.map(key, "hidden_act", ACTIVATIONS[act])


def _all_dropout(reading: Reading, key: str, value: Any) -> None:
    """T5 has one rate for everything."""
    reading.map(key, "attention_dropout", value)
    reading.map(key, "hidden_dropout", value)


def _classes(reading: Reading, key: str, value: Any) -> None:
    """Of an image classifier, by their names."""
    if "image_size" in reading.config:
        reading.map(key, "num_labels", len(value))
    else:
        reading.ignore(key, "how the model is loaded or served")


def _is_decoder(reading: Reading, key: str, value: Any) -> None:
    if value and reading.fields.get("is_decoder") is False:
        reading.refuse(key, "an encoder's family as a decoder is not imported", "false")
    else:
        reading.ignore(key, "as the family is")


def _said_elsewhere(reading: Reading, key: str, value: Any) -> None:
    reading.ignore(key, "follows from other keys")


SPECIAL: Final[dict[str, Special]] = {
    **dict.fromkeys(ACTIVATION_KEYS, _activation),
    **dict.fromkeys(("attention_bias", "mlp_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias"), _some_biases),
    **dict.fromkeys(("attention_out_bias", "lm_head_bias"), _some_biases),
    **dict.fromkeys(("bias", "use_bias", "no_bias"), _all_biases),
    "sliding_window": _window,
    "layer_types": _layer_types,
    "sliding_window_pattern": _pattern,
    "mlp_only_layers": _dense_layers,
    "topk_method": _router_bias,
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), _partial_rotary),
    **dict.fromkeys(("use_parallel_residual", "parallel_attn"), _parallel),
    "alibi": _alibi,
    "multi_query": _one_key_head,
    "num_kv_heads": _key_heads,
    "expansion_ratio": _expansion,
    "attn_config": _mpt_attention,
    "attention_chunk_size": _chunks,
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), _capping),
    **dict.fromkeys(("vision_config", "audio_config", "projector_config"), _other_tower),
    "word_embed_proj_dim": _same_width,
    "is_encoder_decoder": _two_sides,
    "is_decoder": _is_decoder,
    "num_layers": _encoder_layers,
    "n_positions": _positions,
    "feed_forward_proj": _feed_forward,
    "dropout_rate": _all_dropout,
    "id2label": _classes,
    "position_embedding_type": _must_be("absolute", what="attention to relative positions"),
    "add_cross_attention": _must_be(False, None, what="attention to an encoder"),
    "index_topk": _must_be(None, 0, what="sparse attention chosen by an indexer"),
    "do_layer_norm_before": _must_be(True, what="a norm after each block"),
    **dict.fromkeys(
        ("activation_dropout", "ffn_dropout", "layerdrop"), _must_be(0, None, what="this dropout")
    ),
    "use_bidirectional_attention": _must_be(False, None, what="attention in both directions"),
    **dict.fromkeys(
        (
            *("use_sliding_window", "max_window_layers", "qk_head_dim", "moe_layers", "no_rope_layers"),
            *("no_rope_layer_interval", "new_decoder_architecture", "num_ln_in_parallel_attn"),
            *("learned_pos_emb", "experts_per_token", "n_ctx", "seq_length", "layer_group_size"),
            *("expand", "conv_kernel", "chunk_size", "mamba_hidden_act", "mtp_hybrid_override_pattern"),
            *("num_decoder_layers", "dense_act_fn", "is_gated_act"),
        ),
        _said_elsewhere,
    ),
}
"""Key -> what to do with it and its value."""
