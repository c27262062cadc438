"""Activation checkpointing: what is computed again in the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import Choice, Count, FlagOrAuto

RECOMPUTE_MODULES = (
    "core_attn",
    "mlp",
    "moe",
    "moe_act",
    "activation",
    "layernorm",
    "mla_up_proj",
    "shared_experts",
    "per-op",
)  # Megatron's; torchtitan's policy by operator

Granularity: TypeAlias = Annotated[str, Choice(("none", "selective", "full"))]
RecomputeModule: TypeAlias = Annotated[str, Choice(RECOMPUTE_MODULES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recompute:
    """Activation checkpointing, in Megatron's terms."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    granularity: Granularity = "none"
    """Nothing, chosen modules, or whole layers are computed again in the backward pass."""
    method: Annotated[str, Choice(("uniform", "block"))] = "uniform"
    """For full: every layer in units (uniform), or the first layers of each model chunk (block)."""
    num_layers: Count = 1
    """For full: layers of a unit (uniform), or layers recomputed per model chunk (block)."""
    early_stop: FlagOrAuto = None
    """For full, layer by layer: ends with what a gradient needs last; null: where software is PyTorch."""
    modules: tuple[RecomputeModule, ...] = ("core_attn",)
    """For selective: what is recomputed."""
