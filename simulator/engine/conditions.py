"""Slow parts of the machine: what a straggler's own kernels and links reach of the usual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias


class Condition(NamedTuple):
    """Speeds as shares of the usual: of kernels, of the NICs, of the scale-up links."""

    compute: float = 1.0
    nic: float = 1.0
    nvlink: float = 1.0

    def worse(self, other: Condition) -> Condition:
        """The slower of both, part by part."""
        return Condition(*map(min, self, other))


SOUND = Condition()
Places: TypeAlias = Mapping[tuple[int, int], Condition]
"""(pipeline device, place within it) → condition, where it is not sound."""
