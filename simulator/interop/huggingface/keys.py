"""Keys of a Hugging Face ``config.json`` that mean the same in every family of models."""

from __future__ import annotations

import re
from typing import Final

FIELDS: Final[dict[str, str]] = {
    **{
        name: name
        for name in (
            *("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size"),
            *("num_key_value_heads", "head_dim", "max_position_embeddings", "tie_word_embeddings"),
            *("num_experts_per_tok", "moe_intermediate_size", "n_shared_experts", "first_k_dense_replace"),
            *("moe_layer_freq", "n_group", "topk_group", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim"),
            *("qk_rope_head_dim", "v_head_dim", "num_nextn_predict_layers", "attention_dropout"),
            *("hidden_dropout", "num_experts", "moe_latent_size", "moe_shared_expert_intermediate_size"),
            "swiglu_limit",
        )
    },
    "num_local_experts": "num_experts",
    "n_routed_experts": "num_experts",
    "shared_expert_intermediate_size": "moe_shared_expert_intermediate_size",
    "decoder_sparse_step": "moe_layer_freq",
    "interleave_moe_layer_step": "moe_layer_freq",
    "use_qk_norm": "qk_norm",
    "qk_layernorm": "qk_norm",
    "attn_pdrop": "attention_dropout",
    "resid_pdrop": "hidden_dropout",
    "residual_dropout": "hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "hidden_dropout_prob": "hidden_dropout",
    # older names
    "n_embd": "hidden_size",
    "n_embed": "hidden_size",
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_layers": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size",
    "ffn_hidden_size": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
}
"""``config.json`` key -> model field."""

ACTIVATIONS: Final[dict[str, str]] = {
    **dict.fromkeys(("silu", "swish", "swiglu"), "silu"),
    **dict.fromkeys(("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "geglu"), "gelu"),
    "relu": "relu",
    "relu2": "relu2",
}
ACTIVATION_KEYS: Final = (
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "activation",
    "mlp_hidden_act",
)

_NO_WORK: Final[tuple[tuple[str, str], ...]] = (
    (r"architectures|auto_map|transformers_version|_.*|model_type|torchscript", "names and versions"),
    (
        r"(torch_)?dtype|quantization_config|compression_config",
        "the run file says in which precision it trains",
    ),
    (r".*_token_(id|index)|.*_token", "numbers of special tokens"),
    (
        r"rope_(theta|scaling|parameters|interleave|local_base_freq|type|ratio)|rotary_emb_base|rotary_base"
        r"|original_max_position_embeddings|mrope_.*|initial_context_length|default_theta",
        "angles of positions: the same work",
    ),
    (r"initializer_range|initializer_factor|init_.*|use_mup|rescale_prenorm_residual", "initial values"),
    (
        r".*_eps(ilon)?|.*_epsilon|.*norm_factor|query_pre_attn_scalar|.*_multiplier|logits_scaling"
        r"|logit_scale|scale_attn_.*|reorder_and_upcast_attn|attn_scale|floor_scale|attn_temperature_tuning"
        r"|residual_in_fp32|time_step_.*|mamba_dt_.*|scale_depth|scale_emb|attention_softmax_in_fp32"
        r"|apply_residual_connection_post_layernorm|softmax_scale|masked_softmax_fusion|scale_attention_.*"
        r"|embedding_fraction|layer_norm_type|norm_type|mlp_type|use_mrope",
        "a constant or a detail inside a kernel",
    ),
    (
        r"routed_scaling_factor|norm_topk_prob|scoring_func|.*aux_loss.*|seq_aux|output_router_logits"
        r"|router_jitter_noise|router_.*|use_routing_bias|moe_router_.*|e_score_correction_bias",
        "how a router scores: a few numbers per token",
    ),
    (
        r"use_cache|pretraining_tp|ep_size|cache_implementation|keys_to_ignore.*|num_logits_to_keep|use_.*_kernels?"
        r"|.*_attn_impl.*|task_specific_params|summary_.*|max_length|min_length|do_sample|temperature|top_[kp]"
        r"|num_return_sequences|repetition_penalty|return_dict|output_.*|problem_type|id2label|label2id"
        r"|gradient_checkpointing|is_decoder|use_return_dict|slow_but_exact|for_llm_compressor|verbose|prefix",
        "how the model is loaded or served",
    ),
    (
        r"embd_pdrop|emb_pdrop|embedding_dropout|embed_dropout|classifier_dropout",
        "one pass over the embedding",
    ),
    (r"relative_attention_.*|pooler_.*|encoder_stride", "of a part that is left out"),
    (r"use_conv_bias|mamba_proj_bias", "biases: h of h² weights"),
)


def without_work(key: str) -> str:
    """Why a key means nothing for time or memory; empty where it may."""
    return next((reason for pattern, reason in _NO_WORK if re.fullmatch(pattern, key)), "")
