"""A published measurement: who measured what, on which machine, with which recipe.

The fields of the parts of :class:`PublishedRun` are the columns of the tables in ``workloads/published``.
None means that the source does not say; nothing is filled in here (see
:mod:`simulator.validation.row_to_run`).
"""

from __future__ import annotations

from dataclasses import dataclass

CONFIDENCES = ("high", "medium", "low")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which measurement this is. Rows of one ``group`` are near-copies: one model on one machine."""

    run_id: str
    group: str
    collection: str  # whose tables it is from, in one word
    confidence: str  # high, medium or low: how much of layout, batch and recipe is known
    source: str
    source_location: str = ""
    recipe_source: str = ""
    year: int | None = None
    software: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """GPUs and what joins them. ``hardware`` is a device or cluster; ``interconnect`` as documented."""

    hardware: str
    gpus: int
    gpus_per_node: int | None = None
    interconnect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The model's own dimensions, in elements."""

    model: str
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    gated_mlp: bool | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    n_shared_experts: int | None = None
    first_k_dense_replace: int | None = None
    attention_type: str = "mha"
    num_nextn_predict_layers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The batch (sequences) and how it and the model are divided."""

    seq_length: int
    global_batch_size: int | None = None
    micro_batch_size: int | None = None
    tp: int | None = None
    sequence_parallel: bool | None = None
    pp: int | None = None
    vp: int | None = None
    cp: int | None = None
    ep: int | None = None
    etp: int | None = None
    dp: int | None = None
    schedule: str = ""
    stage_layout: str = (
        ""  # Megatron's notation: E embedding, t layer, m prediction layer, L loss, | boundary
    )
    zero: int | None = None  # ZeRO stage; FSDP is stage 3, or 2 without resharding after the forward
    sharding: str = ""  # by what: ddp, distributed-optimizer, fsdp1, fsdp2, megatron-fsdp


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The performance settings."""

    task: str = "pretrain"
    precision: str = "bf16"
    grad_dtype: str = ""
    optimizer: str = ""
    precision_aware_optimizer: bool | None = (
        None  # 16-bit moments, masters as 16 bits more beside each weight
    )
    recompute: str = ""  # none, selective, full; "": not stated
    recompute_modules: tuple[str, ...] = ()
    offload_layers: int | None = None  # layers whose activations go to the host
    offload_modules: tuple[str, ...] = ()
    tp_overlap: bool | None = None
    overlap_grad_reduce: bool | None = None
    overlap_param_gather: bool | None = None
    overlap_p2p: bool | None = None
    scatter_gather: bool | None = None  # pipeline messages in 1/tp pieces (Narayanan 2021, section 4.1)
    rank_order: str = ""  # innermost first
    ep_dispatcher: str = ""
    ep_overlap: bool | None = None
    cuda_graphs: str = ""  # none, layer, full
    cuda_graph_modules: tuple[str, ...] = ()
    attention: str = ""  # unfused, flash
    compiled: bool | None = None  # torch.compile over the layers
    delay_wgrad: bool | None = None  # weight gradients moved behind the expert all-to-all
    fp8_attention: bool | None = None
    fp8_params: bool | None = None  # parameters gathered in fp8
    balanced_routing: bool | None = None  # the router forced to even loads
    capacity_factor: float | None = None  # token-dropping MoE; None: dropless
    other: tuple[str, ...] = ()  # what no field says


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The published numbers. ``tflops_per_gpu`` (1e12 FLOP/s) counts by ``flops_convention``."""

    step_time_s: float | None = None
    step_time_basis: str = ""  # reported, or what it was derived from
    step_time_rounding: float | None = None  # half-width of print rounding, as a fraction
    tokens_per_s_per_gpu: float | None = None
    tflops_per_gpu: float | None = None
    flops_convention: str = ""
    mfu: float | None = None
    peak_memory_bytes: float | None = None
    memory_basis: str = ""  # allocated or reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """One row. ``where`` is file and line, for messages."""

    identity: Identity
    machine: Machine
    architecture: Architecture
    layout: Layout
    recipe: Recipe
    measured: Measured
    where: str = ""

    @property
    def run_id(self) -> str:
        """The row's name."""
        return self.identity.run_id

    @property
    def is_moe(self) -> bool:
        """Whether the model has experts."""
        return bool(self.architecture.num_experts)


PARTS: dict[str, type] = {
    "identity": Identity,
    "machine": Machine,
    "architecture": Architecture,
    "layout": Layout,
    "recipe": Recipe,
    "measured": Measured,
}
