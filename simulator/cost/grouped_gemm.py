"""The GEMMs of a mixture of experts: one per expert in one launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedGemmCoefficients:
    """``efficiency``·rows/(rows + ``half_rows``)·n/(n + ``half_width``) of the dense peak, rows per expert;
    ``bandwidth`` is the fraction of memory bandwidth reached reading the experts' weights."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    efficiency: float
    half_rows: float
    half_width: float
    bandwidth: float
    fixed_s: float


def grouped_gemm_seconds(
    *,
    rows: float,
    groups: float,
    n: float,
    k: float,
    traffic: float,
    peak: float,
    memory_bandwidth: float,
    c: GroupedGemmCoefficients,
) -> float:
    """Roofline whose compute rate saturates with the rows of one expert and the expert's width."""
    per_group = rows / groups
    rate = c.efficiency * peak * per_group / (per_group + c.half_rows)
    width = min(n, k)
    rate *= width / (width + c.half_width)
    compute = 2.0 * rows * n * k / rate
    return max(compute, traffic / (c.bandwidth * memory_bandwidth)) + c.fixed_s
