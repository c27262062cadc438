"""Fused (flash) attention, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCoefficients:
    """The rate is ``efficiency``·peak·S/(S + ``half_seq``)·D/(D + ``half_dim``): S keys seen, D head dimension.

    ``efficiency`` is an asymptote, not a rate any real shape reaches.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    efficiency: float
    half_seq: float
    half_dim: float
    bandwidth: float
    fixed_s: float


def attention_seconds(
    *,
    flops: float,
    traffic: float,
    keys: float,
    head_dim: float,
    peak: float,
    memory_bandwidth: float,
    c: AttentionCoefficients,
) -> float:
    """Roofline whose compute rate saturates with the sequence and the head dimension."""
    rate = c.efficiency * peak * keys / (keys + c.half_seq) * head_dim / (head_dim + c.half_dim)
    return max(flops / rate, traffic / (c.bandwidth * memory_bandwidth)) + c.fixed_s
