"""The architecture of a model, in the field names of a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import Choice, Count, CountOrZero, Flag, Ratio, Real, Text

AttentionType: TypeAlias = Annotated[str, Choice(("mha", "gqa", "mla"))]
Activation: TypeAlias = Annotated[str, Choice(("gelu", "relu", "relu2", "silu"))]
Norm: TypeAlias = Annotated[str, Choice(("rmsnorm", "layernorm"))]
PositionEmbedding: TypeAlias = Annotated[str, Choice(("rope", "learned", "alibi", "none"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A decoder-only transformer. Sizes count elements.

    Fields keep their Hugging Face names. The MoE, MLA and Mamba fields are zero for models without them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Text
    num_hidden_layers: Count
    hidden_size: Count
    intermediate_size: Count
    num_attention_heads: Count
    vocab_size: Count
    num_key_value_heads: CountOrZero = 0  # 0: as many as query heads
    head_dim: CountOrZero = 0  # 0: hidden_size / num_attention_heads
    gated_mlp: Flag = True
    hidden_act: Activation = "silu"
    norm: Norm = "rmsnorm"
    linear_bias: Flag = False
    attention_type: AttentionType = "mha"
    position_embedding: PositionEmbedding = "rope"
    max_position_embeddings: CountOrZero = 0
    tie_word_embeddings: Flag = False
    attention_dropout: Ratio = 0.0
    hidden_dropout: Ratio = 0.0
    # mixture of experts
    num_experts: CountOrZero = 0
    num_experts_per_tok: CountOrZero = 0
    moe_intermediate_size: CountOrZero = 0
    n_shared_experts: CountOrZero = 0
    moe_shared_expert_intermediate_size: CountOrZero = 0
    first_k_dense_replace: CountOrZero = 0
    moe_layer_freq: Count = 1
    moe_latent_size: CountOrZero = 0
    expert_bias: Flag = False
    # multi-head latent attention
    q_lora_rank: CountOrZero = 0
    kv_lora_rank: CountOrZero = 0
    qk_nope_head_dim: CountOrZero = 0
    qk_rope_head_dim: CountOrZero = 0
    v_head_dim: CountOrZero = 0
    num_nextn_predict_layers: CountOrZero = 0
    # attention windows: every ``sliding_window_period``-th layer is full, the others see a window
    sliding_window: CountOrZero = 0
    sliding_window_period: Count = 1
    attention_sinks: Flag = False
    qk_norm: Flag = False
    # Mamba-2 hybrids: one letter per layer, M Mamba, * attention, E experts, - MLP
    hybrid_layer_pattern: Text = ""
    mamba_num_heads: CountOrZero = 0
    mamba_head_dim: CountOrZero = 0
    ssm_state_size: CountOrZero = 0
    mamba_n_groups: Count = 8
    # provenance
    source: Text = ""
    notes: Text = ""
    published_parameters: Real = 0.0  # total, as the publisher prints it; 0: not given

    def __post_init__(self) -> None:
        if not self.num_key_value_heads:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if not self.head_dim and self.num_attention_heads:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)

    @property
    def is_gpt(self) -> bool:
        """Whether every layer has GPT's proportions: multi-head attention and an ungated MLP of 4·h."""
        return (
            self.attention_type == "mha"
            and not (
                self.is_moe or self.gated_mlp or self.hybrid_layer_pattern or self.num_nextn_predict_layers
            )
            and self.intermediate_size == 4 * self.hidden_size
            and self.num_attention_heads * self.head_dim == self.hidden_size
        )

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes its tokens to experts."""
        return self.num_experts > 0
