"""Copies over the host link and to NVMe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyCoefficients:
    """``bandwidth`` is the fraction of the link's rate that a large copy reaches; ``fixed_s`` comes on
    top of the link's latency."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    bandwidth: float
    fixed_s: float


def copy_seconds(*, size_bytes: float, link_bandwidth: float, latency_s: float, c: CopyCoefficients) -> float:
    """Latency plus size over achieved bandwidth."""
    return latency_s + c.fixed_s + size_bytes / (c.bandwidth * link_bandwidth)
