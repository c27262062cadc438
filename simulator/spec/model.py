"""The architecture of a model, in the field names of a Hugging Face ``config.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import Choice, Count, CountOrZero, Flag, Integer, Ratio, Real, Text
from simulator.spec.operator_graph import GraphLayer

Layers: TypeAlias = Annotated[int, Integer(0, 10_000)]
AttentionType: TypeAlias = Annotated[str, Choice(("mha", "gqa", "mla"))]
Activation: TypeAlias = Annotated[str, Choice(("gelu", "relu", "relu2", "silu"))]
Norm: TypeAlias = Annotated[str, Choice(("rmsnorm", "layernorm"))]
PositionEmbedding: TypeAlias = Annotated[str, Choice(("rope", "learned", "alibi", "none"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A transformer by its sizes, or any network by its operators. Sizes count elements.

    Fields keep their Hugging Face names. The MoE, MLA and Mamba fields are zero for models without them, all
    sizes of transformers where ``layers`` says what is computed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Text
    """Of the model."""
    num_hidden_layers: Layers = 0
    """Transformer layers (of an operator graph: counted from its layers)."""
    hidden_size: CountOrZero = 0
    """Width of the residual stream."""
    intermediate_size: CountOrZero = 0
    """Width of the dense MLP."""
    num_attention_heads: CountOrZero = 0
    """Query heads."""
    vocab_size: CountOrZero = 0
    """Before padding."""
    num_key_value_heads: CountOrZero = 0
    """Key-value heads; 0: as many as query heads."""
    head_dim: CountOrZero = 0
    """Of a head; 0: hidden_size / num_attention_heads."""
    gated_mlp: Flag = True
    """A second up projection gates the first (SwiGLU)."""
    hidden_act: Activation = "silu"
    """Activation of the MLP."""
    swiglu_limit: Real = 0.0
    """Bound on both halves of a gated expert's inner values; 0: none."""
    norm: Norm = "rmsnorm"
    """Normalisation."""
    linear_bias: Flag = False
    """Linear layers have biases."""
    attention_type: AttentionType = "mha"
    """Multi-head, grouped-query, or multi-head latent attention."""
    position_embedding: PositionEmbedding = "rope"
    """How positions are known."""
    yarn: Flag = False
    """Rotated queries and keys are scaled too (YaRN)."""
    max_position_embeddings: CountOrZero = 0
    """Longest sequence; 0: not given."""
    tie_word_embeddings: Flag = False
    """LM head and embedding are one matrix."""
    attention_dropout: Ratio = 0.0
    """Of the attention probabilities."""
    hidden_dropout: Ratio = 0.0
    """Of what a block adds to the residual stream."""
    # mixture of experts
    num_experts: CountOrZero = 0
    """Routed experts of a layer; 0: dense."""
    num_experts_per_tok: CountOrZero = 0
    """Experts a token goes to."""
    n_group: CountOrZero = 0
    """Groups of experts that a token's choice is first narrowed to; 0: none (DeepSeek: nodes)."""
    topk_group: CountOrZero = 0
    """Of them, how many a token's experts may lie in."""
    moe_intermediate_size: CountOrZero = 0
    """Width of one routed expert; 0: intermediate_size."""
    n_shared_experts: CountOrZero = 0
    """Experts that every token goes to."""
    moe_shared_expert_intermediate_size: CountOrZero = 0
    """Width of all shared experts together; 0: n_shared_experts · moe_intermediate_size."""
    first_k_dense_replace: CountOrZero = 0
    """Leading layers that are dense."""
    moe_layer_freq: Count = 1
    """Every n-th layer has experts."""
    moe_latent_size: CountOrZero = 0
    """Width at which tokens travel to experts; 0: hidden_size."""
    expert_bias: Flag = False
    """The router has a bias per expert."""
    # multi-head latent attention
    q_lora_rank: CountOrZero = 0
    """Rank of the queries' down projection; 0: none."""
    kv_lora_rank: CountOrZero = 0
    """Rank of the keys' and values' down projection."""
    qk_nope_head_dim: CountOrZero = 0
    """Head size of queries and keys without rotation."""
    qk_rope_head_dim: CountOrZero = 0
    """Head size of their rotated part."""
    v_head_dim: CountOrZero = 0
    """Head size of the values."""
    num_nextn_predict_layers: Layers = 0
    """Multi-token-prediction layers."""
    # attention windows: every ``sliding_window_period``-th layer is full, the others see a window
    sliding_window: CountOrZero = 0
    """Tokens a windowed layer sees; 0: all."""
    sliding_window_period: Count = 1
    """Every n-th layer sees all, the others a window."""
    attention_sinks: Flag = False
    """Learned logits that attend to nothing."""
    qk_norm: Flag = False
    """Norms on queries and keys."""
    # Mamba-2 hybrids: one letter per layer, M Mamba, * attention, E experts, - MLP
    hybrid_layer_pattern: Text = ""
    """One letter per layer: M Mamba, * attention, E experts, - MLP; empty: a plain transformer."""
    mamba_num_heads: CountOrZero = 0
    """Heads of a Mamba layer."""
    mamba_head_dim: CountOrZero = 0
    """Of a Mamba head."""
    ssm_state_size: CountOrZero = 0
    """State of a Mamba head."""
    mamba_n_groups: Count = 8
    """Groups that share a Mamba layer's B and C."""
    # encoders and encoder–decoders
    is_decoder: Flag = True
    """Tokens see those before them only; false: an encoder such as BERT, whose tokens see all."""
    num_encoder_layers: CountOrZero = 0
    """Of the layers, the first ones that are an encoder's; the others attend to its output (T5)."""
    type_vocab_size: CountOrZero = 0
    """Kinds of segments that BERT embeds."""
    image_size: CountOrZero = 0
    """Of a vision transformer: pixels of a side of an image."""
    patch_size: CountOrZero = 0
    """Pixels of a side of a patch."""
    num_channels: Count = 3
    """Colours of a pixel."""
    num_labels: CountOrZero = 0
    """Classes of an image."""
    chunk_size: Count = 128
    """Tokens of a chunk of a Mamba layer's scan (Megatron-LM's default)."""
    # any other network
    sample: tuple[Count, ...] = ()
    """With layers: channels, height and width of what enters, or features alone."""
    layers: tuple[GraphLayer, ...] = ()
    """An operator graph in place of a transformer's sizes."""
    # provenance
    source: Text = ""
    """Public source."""
    notes: Text = ""
    """What else to know."""
    published_parameters: Real = 0.0
    """Total as the publisher prints it; 0: not given."""

    def __post_init__(self) -> None:
        if not self.num_key_value_heads:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if not self.head_dim and self.num_attention_heads:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.layers and not self.num_hidden_layers:
            object.__setattr__(self, "num_hidden_layers", sum(layer.repeat for layer in self.layers))

    @property
    def is_gpt(self) -> bool:
        """Whether every layer has GPT's proportions: multi-head attention and an ungated MLP of 4·h."""
        return (
            self.attention_type == "mha"
            and not (
                self.is_moe or self.gated_mlp or self.hybrid_layer_pattern or self.num_nextn_predict_layers
            )
            and not (self.layers or self.bidirectional_layers)
            and self.intermediate_size == 4 * self.hidden_size
            and self.num_attention_heads * self.head_dim == self.hidden_size
        )

    @property
    def is_encoder(self) -> bool:
        """Whether it has no decoder."""
        return not self.is_decoder

    @property
    def bidirectional_layers(self) -> int:
        """Layers whose tokens see the whole sequence: the first ones."""
        return self.num_hidden_layers if self.is_encoder else self.num_encoder_layers

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes its tokens to experts."""
        return self.num_experts > 0
