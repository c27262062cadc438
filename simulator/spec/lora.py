"""Adapters that are trained in place of the model's own weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import Choice, CountOrZero

LORA_TARGETS = ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")
LoraTarget: TypeAlias = Annotated[str, Choice(LORA_TARGETS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adapters (LoRA, Hu 2021) beside frozen products, in Megatron-Core's names of modules."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rank: CountOrZero = 0
    """Of each adapter; 0: the whole model is trained."""
    targets: tuple[LoraTarget, ...] = LORA_TARGETS
    """Products that have one."""
