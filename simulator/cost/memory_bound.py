"""Kernels limited by memory traffic: norms, activations, casts, the optimizer and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCoefficients:
    """``bandwidth`` is the fraction of memory bandwidth that a large kernel reaches, ``fixed_s`` the
    time of an empty one. Together they are Hockney's line: half the rate is reached at
    ``fixed_s``·bandwidth bytes.

    ``warm`` is how many times faster traffic is that the L2 cache holds, as when a benchmark repeats a
    kernel on one small tensor. It serves to read such measurements; predictions never use it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    bandwidth: float
    fixed_s: float
    warm: float = 1.0


def memory_bound_seconds(
    *, traffic: float, kernels: float, memory_bandwidth: float, c: MemoryCoefficients
) -> float:
    """Traffic over achieved bandwidth, plus a fixed time per launch."""
    return kernels * c.fixed_s + traffic / (c.bandwidth * memory_bandwidth)
