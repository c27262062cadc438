"""Families of Hugging Face models: what their code fixes beyond what a ``config.json`` says.

Read from the configuration and modelling files of huggingface/transformers, and for DeepSeek and Kimi from
the files beside their weights. A new family is one entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A family of models.

    ``fixed``: model fields that its code decides; ``defaults``: ``config.json`` keys that its configuration
    class fills in where a file leaves them out; ``names``: keys that mean another field than elsewhere;
    ``near``: what it has that the model file can only say approximately.
    """

    fixed: Mapping[str, object] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    near: tuple[tuple[str, str], ...] = ()


QKV_BIAS: Final = ("biases of Q, K and V", "none: h of h² weights")
FOUR_NORMS: Final = ("four norms per layer", "two: the others are a per mille of a layer")
PARALLEL: Final = (
    "attention and MLP side by side",
    "one after the other: the same products; with tp > 1 one all-reduce more per layer and pass",
)

_UNTIED: Final = {"tie_word_embeddings": False}
_TIED: Final = {"tie_word_embeddings": True}
_LLAMA = Dialect(
    fixed={"gated_mlp": True, "norm": "rmsnorm", "position_embedding": "rope"},
    defaults={"hidden_act": "silu", **_UNTIED},
)
_GPT = Dialect(
    fixed={"gated_mlp": False, "norm": "layernorm", "linear_bias": True, "position_embedding": "learned"},
    defaults={"hidden_act": "gelu", **_TIED},
)


_ENCODER = Dialect(
    fixed={"is_decoder": False, "gated_mlp": False, "norm": "layernorm", "linear_bias": True},
    defaults={"hidden_act": "gelu"},
)
_T5 = Dialect(
    fixed={"norm": "rmsnorm", "position_embedding": "none"},
    defaults={"feed_forward_proj": "relu", "dropout_rate": 0.1, **_TIED},
    names={"d_ff": "intermediate_size", "d_kv": "head_dim", "num_heads": "num_attention_heads"},
    near=(("relative position biases", "none: a number per bucket and head"),),
)


def _like(
    base: Dialect,
    *,
    fixed: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
    names: Mapping[str, str] | None = None,
    near: tuple[tuple[str, str], ...] = (),
) -> Dialect:
    """A family beside another: what is given is added to that one's."""
    return Dialect(
        fixed={**base.fixed, **(fixed or {})},
        defaults={**base.defaults, **(defaults or {})},
        names={**base.names, **(names or {})},
        near=(*base.near, *near),
    )


_MLA = _like(_LLAMA, fixed={"attention_type": "mla"})
_DEEPSEEK_V3 = _like(_MLA, defaults={"topk_method": "noaux_tc"})
_GEMMA = Dialect(
    fixed={"gated_mlp": True, "norm": "rmsnorm", "position_embedding": "rope"},
    defaults={"hidden_act": "gelu_pytorch_tanh", "head_dim": 256, **_TIED},
)
_BERT = _like(
    _ENCODER,
    fixed={"position_embedding": "learned"},
    defaults={
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "type_vocab_size": 2,
        "max_position_embeddings": 512,
        **_TIED,
    },
    names={"type_vocab_size": "type_vocab_size"},
    near=(("pooler and classifier of whole sequences", "none: h of h·V weights"),),
)
_LLAMA4 = _like(
    _LLAMA,
    fixed={"n_shared_experts": 1},
    defaults={"interleave_moe_layer_step": 1},
    names={"intermediate_size": "moe_intermediate_size", "intermediate_size_mlp": "intermediate_size"},
)

DIALECTS: Final[dict[str, Dialect]] = {
    "llama": _LLAMA,
    "mistral": _like(_LLAMA, defaults={"sliding_window": 4096}),
    "ministral": _LLAMA,
    "granite": _LLAMA,
    "phi3": _LLAMA,
    "smollm3": _LLAMA,
    "seed_oss": _LLAMA,
    "mixtral": _LLAMA,
    "granitemoe": _LLAMA,
    "phimoe": _like(_LLAMA, fixed={"norm": "layernorm"}),
    "qwen2": _like(_LLAMA, near=(QKV_BIAS,)),
    "qwen2_moe": _like(
        _LLAMA,
        near=(QKV_BIAS, ("gate of the shared expert", "none: a product with one output per token")),
    ),
    "qwen3": _like(_LLAMA, fixed={"qk_norm": True}),
    "qwen3_moe": _like(_LLAMA, fixed={"qk_norm": True}, defaults={"decoder_sparse_step": 1}),
    "glm4_moe": _like(_DEEPSEEK_V3, fixed={"attention_type": "gqa"}),
    "deepseek_v2": _like(_MLA, defaults={"topk_method": "greedy"}),
    "deepseek_v3": _DEEPSEEK_V3,
    "kimi_k2": _DEEPSEEK_V3,
    "gpt_oss": _like(
        _LLAMA,
        fixed={"linear_bias": True, "attention_sinks": True, "yarn": True},
        defaults={"sliding_window_pattern": 2},
    ),
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
    "gemma": _GEMMA,
    "gemma2": _like(_GEMMA, defaults={"sliding_window_pattern": 2}, near=(FOUR_NORMS,)),
    "gemma3": _like(
        _GEMMA, fixed={"qk_norm": True}, defaults={"sliding_window_pattern": 6}, near=(FOUR_NORMS,)
    ),
    "gemma3_text": _like(
        _GEMMA, fixed={"qk_norm": True}, defaults={"sliding_window_pattern": 6}, near=(FOUR_NORMS,)
    ),
    "gpt2": _like(
        _GPT, defaults={"vocab_size": 50257, "n_positions": 1024, "attn_pdrop": 0.1, "resid_pdrop": 0.1}
    ),
    "gpt_bigcode": _like(_GPT, defaults={"multi_query": True, "attn_pdrop": 0.1, "resid_pdrop": 0.1}),
    "gpt_neox": _like(
        _GPT, fixed={"position_embedding": "rope"}, defaults={"use_parallel_residual": True, **_UNTIED}
    ),
    "opt": _like(
        _GPT, defaults={"activation_function": "relu", "dropout": 0.1}, names={"dropout": "hidden_dropout"}
    ),
    "bloom": _like(_GPT, fixed={"position_embedding": "alibi"}),
    "falcon": _like(
        _GPT,
        fixed={"linear_bias": False, "position_embedding": "rope"},
        defaults={"multi_query": True, "parallel_attn": True},
    ),
    "phi": _like(_GPT, fixed={"position_embedding": "rope"}, defaults=_UNTIED, near=(PARALLEL,)),
    "starcoder2": _like(_GPT, fixed={"position_embedding": "rope"}),
    "stablelm": _like(_LLAMA, fixed={"norm": "layernorm"}),
    "mpt": _like(_GPT, fixed={"linear_bias": False}, defaults={"expansion_ratio": 4}),
    "nemotron": _like(
        _GPT,
        fixed={"linear_bias": False, "position_embedding": "rope"},
        defaults={"hidden_act": "relu2", **_UNTIED},
    ),
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "vit": _like(
        _ENCODER,
        fixed={"position_embedding": "none"},
        defaults={"image_size": 224, "patch_size": 16, "num_channels": 3, "id2label": [0, 1]},
        names={"image_size": "image_size", "patch_size": "patch_size", "num_channels": "num_channels"},
        near=(("learned positions", "part of the patch embedding"),),
    ),
    "t5": _T5,
    "mt5": _like(_T5, defaults={"feed_forward_proj": "gated-gelu", **_UNTIED}),
    "nemotron_h": Dialect(
        fixed={"gated_mlp": False, "norm": "rmsnorm", "position_embedding": "none"},
        defaults={"mlp_hidden_act": "relu2", **_UNTIED},
        names={
            "hybrid_override_pattern": "hybrid_layer_pattern",
            "mamba_num_heads": "mamba_num_heads",
            "mamba_head_dim": "mamba_head_dim",
            "ssm_state_size": "ssm_state_size",
            "n_groups": "mamba_n_groups",
            "chunk_size": "chunk_size",
            "attention_head_dim": "head_dim",
        },
    ),
}

NOT_IMPORTED: Final[dict[str, str]] = {
    "qwen3_next": "layers of linear attention (gated delta net)",
    "deepseek_v32": "sparse attention chosen by an indexer",
    "deepseek_v4": "compressed sparse attention",
    "minimax_m1": "layers of linear (lightning) attention",
    "minimax_text_01": "layers of linear (lightning) attention",
    "jamba": "Mamba-1 layers",
    "mamba": "Mamba-1 layers",
    "recurrent_gemma": "recurrent layers",
    "rwkv": "recurrent layers",
    "gemma3n": "alternating updates and per-layer embeddings",
    "olmo2": "norms after each block, over the whole width of queries and keys",
    "cohere2": "one norm for attention and MLP side by side, with a window in three layers of four",
    "electra": "a generator and a discriminator",
    "bart": "an encoder and a decoder with norms and positions of their own",
    "whisper": "an encoder of sound and a decoder",
    "clip": "an encoder of images and one of text",
}
"""Families known and not imported, and what they have."""
