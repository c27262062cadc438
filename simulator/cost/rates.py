"""The datasheet facts that a kernel's time depends on."""

from __future__ import annotations

from typing import NamedTuple


class Rates(NamedTuple):
    """What a device offers one kernel: arithmetic in its precision, memory, and SMs to spread over."""

    peak: float  # FLOP/s, dense
    memory_bandwidth: float  # bytes/s
    sm_count: int
