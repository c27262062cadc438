"""Flags of Megatron-LM's ``pretrain_gpt.py`` and the keys of a run file they set: a line each.

Names and defaults are those of ``megatron/training/arguments.py`` and Megatron-Core's transformer
configuration (core 0.12 to 0.15, and the names of older releases).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Keys = Mapping[str, Any]

DEFAULTS: Final[dict[str, Any]] = {
    "model.gated_mlp": False,
    "model.hidden_act": "gelu",
    "model.norm": "layernorm",
    "model.linear_bias": True,
    "model.position_embedding": "learned",
    "model.tie_word_embeddings": True,
    "model.attention_dropout": 0.1,
    "model.hidden_dropout": 0.1,
    "parallelism.sequence_parallel": False,
    "parallelism.zero": 0,
    "training.precision": "fp32",
    "training.optimizer": "adamw",
    "runtime.overlap_grad_reduce": False,
    "runtime.overlap_param_gather": False,
    "runtime.average_in_collective": False,
    "runtime.moe_dispatcher": "allgather",
    "runtime.moe_permute_fusion": False,
}
"""Keys where a run file's default is not Megatron-LM's."""

VALUES: Final[dict[str, str]] = {
    # model
    "--num-layers": "model.num_hidden_layers",
    "--hidden-size": "model.hidden_size",
    "--ffn-hidden-size": "model.intermediate_size",
    "--num-attention-heads": "model.num_attention_heads",
    "--num-query-groups": "model.num_key_value_heads",
    "--kv-channels": "model.head_dim",
    "--vocab-size": "model.vocab_size",
    "--max-position-embeddings": "model.max_position_embeddings",
    "--attention-dropout": "model.attention_dropout",
    "--hidden-dropout": "model.hidden_dropout",
    "--mtp-num-layers": "model.num_nextn_predict_layers",
    "--q-lora-rank": "model.q_lora_rank",
    "--kv-lora-rank": "model.kv_lora_rank",
    "--qk-head-dim": "model.qk_nope_head_dim",
    "--qk-pos-emb-head-dim": "model.qk_rope_head_dim",
    "--v-head-dim": "model.v_head_dim",
    "--num-experts": "model.num_experts",
    "--moe-router-topk": "model.num_experts_per_tok",
    "--moe-ffn-hidden-size": "model.moe_intermediate_size",
    "--moe-shared-expert-intermediate-size": "model.moe_shared_expert_intermediate_size",
    "--moe-latent-size": "model.moe_latent_size",
    "--moe-router-num-groups": "model.n_group",
    "--moe-router-group-topk": "model.topk_group",
    "--hybrid-override-pattern": "model.hybrid_layer_pattern",
    "--mamba-num-heads": "model.mamba_num_heads",
    "--mamba-head-dim": "model.mamba_head_dim",
    "--mamba-state-dim": "model.ssm_state_size",
    "--mamba-num-groups": "model.mamba_n_groups",
    # layout
    "--tensor-model-parallel-size": "parallelism.tp",
    "--model-parallel-size": "parallelism.tp",
    "--pipeline-model-parallel-size": "parallelism.pp",
    "--num-virtual-stages-per-pipeline-rank": "parallelism.vp",
    "--context-parallel-size": "parallelism.cp",
    "--expert-model-parallel-size": "parallelism.ep",
    "--expert-tensor-parallel-size": "parallelism.etp",
    "--pipeline-model-parallel-layout": "parallelism.stage_split",
    # batch and numbers
    "--seq-length": "training.seq_length",
    "--encoder-seq-length": "training.seq_length",
    "--micro-batch-size": "training.micro_batch_size",
    "--batch-size": "training.micro_batch_size",
    "--global-batch-size": "training.global_batch_size",
    "--num-layers-at-start-in-bf16": "training.num_layers_at_start_in_bf16",
    "--num-layers-at-end-in-bf16": "training.num_layers_at_end_in_bf16",
    "--recompute-granularity": "training.recompute.granularity",
    "--recompute-method": "training.recompute.method",
    "--activations-checkpoint-method": "training.recompute.method",
    "--recompute-num-layers": "training.recompute.num_layers",
    "--activations-checkpoint-num-layers": "training.recompute.num_layers",
    "--moe-expert-capacity-factor": "training.moe.capacity_factor",
    # software
    "--cross-entropy-fusion-impl": "runtime.cross_entropy_fusion_impl",
    "--ddp-bucket-size": "runtime.ddp_bucket_elements",
}
"""Flags that carry their key's value."""

SWITCHES: Final[dict[str, Keys]] = {
    "--swiglu": {"model.gated_mlp": True, "model.hidden_act": "silu"},
    "--quick-geglu": {"model.gated_mlp": True, "model.hidden_act": "gelu"},
    "--squared-relu": {"model.hidden_act": "relu2"},
    "--disable-bias-linear": {"model.linear_bias": False},
    "--untie-embeddings-and-output-weights": {"model.tie_word_embeddings": False},
    "--use-rotary-position-embeddings": {"model.position_embedding": "rope"},
    "--multi-latent-attention": {"model.attention_type": "mla"},
    "--qk-layernorm": {"model.qk_norm": True},
    "--moe-router-enable-expert-bias": {"model.expert_bias": True},
    "--use-distributed-optimizer": {"parallelism.zero": 1},
    "--use-tp-pp-dp-mapping": {"runtime.rank_order": "tp-cp-ep-pp-dp"},
    "--bf16": {"training.precision": "bf16"},
    "--fp16": {"training.precision": "fp16"},
    "--fp8-hybrid": {"training.precision": "fp8"},
    "--fp8-e4m3": {"training.precision": "fp8"},
    "--fp8-param-gather": {"training.fp8_param_gather": True},
    "--fp8-param": {"training.fp8_param_gather": True},
    "--fp8-dot-product-attention": {"training.fp8_attention": True},
    "--fp8-multi-head-attention": {"training.fp8_attention": True},
    "--accumulate-allreduce-grads-in-fp32": {"training.grad_dtype": "fp32"},
    "--grad-reduce-in-bf16": {"training.grad_dtype": "bf16"},
    "--use-precision-aware-optimizer": {"training.master_weights": "remainder"},
    "--recompute-activations": {"training.recompute.granularity": "selective"},
    "--checkpoint-activations": {"training.recompute.granularity": "full"},
    "--moe-pad-expert-input-to-capacity": {"training.moe.pad_to_capacity": True},
    "--use-flash-attn": {"runtime.attention": "flash"},
    "--tp-comm-overlap": {"runtime.tp_overlap": True},
    "--no-async-tensor-model-parallel-allreduce": {"runtime.tp_dgrad_overlap": False},
    "--no-gradient-accumulation-fusion": {"runtime.gradient_accumulation_fusion": False},
    "--overlap-grad-reduce": {"runtime.overlap_grad_reduce": True},
    "--overlap-param-gather": {"runtime.overlap_param_gather": True},
    "--ddp-average-in-collective": {"runtime.average_in_collective": True},
    "--no-overlap-p2p-communication": {"runtime.overlap_p2p": False},
    "--cross-entropy-loss-fusion": {"runtime.cross_entropy_fusion": True},
    "--moe-enable-deepep": {"runtime.moe_dispatcher": "deepep"},
    "--moe-permute-fusion": {"runtime.moe_permute_fusion": True},
    "--moe-router-fusion": {"runtime.moe_router_fusion": True},
    "--moe-shared-expert-overlap": {"runtime.moe_shared_expert_overlap": True},
    "--overlap-moe-expert-parallel-comm": {"runtime.ep_overlap": True},
    "--delay-wgrad-compute": {"runtime.delay_wgrad": True},
    "--enable-cuda-graph": {"runtime.cuda_graphs": "layer"},
    "--external-cuda-graph": {"runtime.cuda_graphs": "layer"},
    "--use-megatron-fsdp": {"parallelism.fsdp.buffers": "in-place"},
    "--use-custom-fsdp": {"parallelism.fsdp.buffers": "in-place"},
    "--use-torch-fsdp2": {"parallelism.zero": 3, "parallelism.fsdp.buffers": "copied"},
}
"""Flags that set keys by being there."""

CHOICES: Final[dict[str, dict[str, Keys]]] = {
    "--normalization": {"RMSNorm": {"model.norm": "rmsnorm"}, "LayerNorm": {"model.norm": "layernorm"}},
    "--position-embedding-type": {
        "rope": {"model.position_embedding": "rope"},
        "yarn": {"model.position_embedding": "rope", "model.yarn": True},
        "learned_absolute": {"model.position_embedding": "learned"},
        "none": {"model.position_embedding": "none"},
    },
    "--softmax-type": {"vanilla": {}, "learnable": {"model.attention_sinks": True}},
    "--fp8-format": {name: {"training.precision": "fp8"} for name in ("hybrid", "e4m3")},
    "--fp8-recipe": {
        "delayed": {"training.fp8_recipe": "delayed"},
        "tensorwise": {"training.fp8_recipe": "current"},
        "blockwise": {"training.fp8_recipe": "blockwise"},
        "mxfp8": {"training.precision": "mxfp8"},
    },
    "--fp4-format": {"e2m1": {"training.precision": "nvfp4"}},
    "--fp4-recipe": {"nvfp4": {}},
    "--optimizer": {
        "adam": {"training.optimizer": "adamw"},
        "sgd": {"training.optimizer": "sgd-momentum"},
        "muon": {"training.optimizer": "muon"},
        "dist_muon": {"training.optimizer": "muon"},
    },
    "--exp-avg-dtype": {name: {"training.moment_dtype": name} for name in ("fp32", "bf16", "fp16", "fp8")},
    "--exp-avg-sq-dtype": {name: {"training.moment_dtype": name} for name in ("fp32", "bf16", "fp16", "fp8")},
    "--main-grads-dtype": {name: {"training.grad_dtype": name} for name in ("fp32", "bf16")},
    "--main-params-dtype": {"fp32": {}},
    "--data-parallel-sharding-strategy": {
        "no_shard": {"parallelism.zero": 0},
        "optim": {"parallelism.zero": 1},
        "optim_grads": {"parallelism.zero": 2},
        "optim_grads_params": {"parallelism.zero": 3},
    },
    "--cp-comm-type": {
        "p2p": {"parallelism.cp_method": "ring"},
        "all_gather": {"parallelism.cp_method": "all-gather"},
        "a2a": {"parallelism.cp_method": "ulysses"},
        "a2a+p2p": {"parallelism.cp_method": "hierarchical"},
    },
    "--attention-backend": {
        **{name: {"runtime.attention": "flash"} for name in ("flash", "fused", "auto")},
        **{name: {"runtime.attention": "unfused"} for name in ("unfused", "local")},
    },
    "--moe-token-dispatcher-type": {
        "allgather": {"runtime.moe_dispatcher": "allgather"},
        "alltoall": {"runtime.moe_dispatcher": "alltoall"},
        "alltoall_seq": {"runtime.moe_dispatcher": "alltoall"},
        "flex": {"runtime.moe_dispatcher": "deepep"},
    },
    "--moe-flex-dispatcher-backend": {
        "deepep": {"runtime.moe_dispatcher": "deepep"},
        "hybridep": {"runtime.moe_dispatcher": "hybridep"},
    },
    "--cuda-graph-impl": {
        "none": {"runtime.cuda_graphs": "none"},
        "local": {"runtime.cuda_graphs": "layer"},
        "transformer_engine": {"runtime.cuda_graphs": "layer"},
    },
    "--cross-entropy-fusion-impl": {"native": {}, "te": {}},
}
"""Flags whose value picks keys."""

APPROXIMATED: Final[dict[str, str]] = {
    **{
        f"--no-{what}-fusion": "fused, as usual"
        for what in (
            "masked-softmax",
            "bias-gelu",
            "bias-swiglu",
            "bias-dropout",
            "rope",
            "persist-layer-norm",
        )
    },
    "--add-qkv-bias": "without biases of Q, K and V: h of h² weights",
    "--rotary-percent": "rotation of whole heads: a per mille of a layer",
    "--rampup-batch-size": "a step at the full batch",
    "--tp-comm-overlap-cfg": "the simulator's own choice of overlap",
    "--disable-tp-comm-overlap-ag": "all products overlapped, where that is quicker",
    "--disable-tp-comm-overlap-rs": "all products overlapped, where that is quicker",
    "--disable-tp-comm-bulk-dgrad": "all products overlapped, where that is quicker",
    "--disable-tp-comm-bulk-wgrad": "all products overlapped, where that is quicker",
    "--disable-tp-comm-split-ag": "all products overlapped, where that is quicker",
    "--disable-tp-comm-split-rs": "all products overlapped, where that is quicker",
    "--tp-comm-overlap-rs-dgrad": "the simulator's own choice of overlap",
    "--defer-embedding-wgrad-compute": "the embedding's weight gradient in its place",
    "--overlap-param-gather-with-optimizer-step": "the gathers beside the forward pass",
    "--high-priority-stream-groups": "communication without priorities",
    "--moe-use-legacy-grouped-gemm": "products of the local experts as Transformer Engine runs them",
    "--moe-router-force-load-balancing": "even routing, as is the default here",
    "--moe-router-padding-for-fp8": "rows of experts without padding",
    "--moe-router-padding-for-quantization": "rows of experts without padding",
}
"""Flags with a small effect that is entered as something near it."""
