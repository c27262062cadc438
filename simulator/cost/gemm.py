"""Dense and batched matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmCoefficients:
    """``efficiency`` and ``bandwidth`` are fractions of the dense peak and of memory bandwidth; ``fixed_s`` is the time
    of an empty kernel; ``accumulate`` is the extra share of time when the result is added to an fp32 buffer."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    efficiency: float
    bandwidth: float
    fixed_s: float
    accumulate: float = 0.0


def gemm_seconds(
    *, flops: float, traffic: float, peak: float, memory_bandwidth: float, c: GemmCoefficients
) -> float:
    """Roofline: the slower of arithmetic and memory traffic, after a fixed time."""
    compute = flops / (c.efficiency * peak)
    memory = traffic / (c.bandwidth * memory_bandwidth)
    return max(compute, memory) + c.fixed_s
