"""The architecture of a model, in the field names of a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

AttentionType = Literal["mha", "gqa", "mla"]
Activation = Literal["gelu", "relu", "relu2", "silu"]
Norm = Literal["rmsnorm", "layernorm"]
PositionEmbedding = Literal["rope", "learned", "alibi", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder-only transformer. Sizes count elements; ``None`` means "derived from the others".

    Fields keep their Hugging Face names. The MoE, MLA and Mamba fields are zero for models without them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=False)

    name: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    vocab_size: int
    num_key_value_heads: int = 0  # 0: as many as query heads
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    gated_mlp: bool = True
    hidden_act: Activation = "silu"
    norm: Norm = "rmsnorm"
    linear_bias: bool = False
    attention_type: AttentionType = "mha"
    position_embedding: PositionEmbedding = "rope"
    max_position_embeddings: int = 0
    tie_word_embeddings: bool = False
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    # mixture of experts
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    n_shared_experts: int = 0
    moe_shared_expert_intermediate_size: int = 0
    first_k_dense_replace: int = 0
    moe_layer_freq: int = 1
    moe_latent_size: int = 0
    expert_bias: bool = False
    # multi-head latent attention
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    num_nextn_predict_layers: int = 0
    # attention windows: every ``sliding_window_period``-th layer is full, the others see a window
    sliding_window: int = 0
    sliding_window_period: int = 1
    attention_sinks: bool = False
    qk_norm: bool = False
    # Mamba-2 hybrids: one letter per layer, M Mamba, * attention, E experts, - MLP
    hybrid_layer_pattern: str = ""
    mamba_num_heads: int = 0
    mamba_head_dim: int = 0
    ssm_state_size: int = 0
    mamba_n_groups: int = 8
    # provenance
    source: str = ""
    notes: str = ""
    published_parameters: float = 0.0  # total, as the publisher prints it; 0: not given

    def __post_init__(self) -> None:
        if not self.num_key_value_heads:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if not self.head_dim and self.num_attention_heads:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes its tokens to experts."""
        return self.num_experts > 0
