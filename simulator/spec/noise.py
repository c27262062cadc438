"""What makes equal work take unequal time: jitter, and slow parts of the machine by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import Integer, Quantity, Text

FORBID = ConfigDict(extra="forbid")
Spread: TypeAlias = Annotated[float, Quantity("ratio")]
SpreadOrNone: TypeAlias = Annotated[float | None, Quantity("ratio", optional=True)]
Share: TypeAlias = Annotated[float, Quantity("ratio", positive=True)]
PlaceOrNone: TypeAlias = Annotated[int | None, Integer(0, optional=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """Relative standard deviations, each around the time that the cost models give."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    compute: Spread = 0.0
    """Of a kernel's time, anew for every kernel."""
    gemm: SpreadOrNone = None
    """Of matrix products, experts' too; null: as ``compute``."""
    attention: SpreadOrNone = None
    """Of attention kernels; null: as ``compute``."""
    memory: SpreadOrNone = None
    """Of all other kernels, which memory bounds: norms, activations, optimizer; null: as ``compute``."""
    communication: Spread = 0.0
    """Of a collective's or message's time, anew for each."""
    rank: Spread = 0.0
    """Of a GPU's kernel times, from one GPU to the next and constant for a step."""
    source: Text = ""
    """Where the figures come from."""

    @property
    def kernels(self) -> tuple[float, float, float]:
        """Of matrix products, of attention, and of all other kernels."""
        own = (self.gemm, self.attention, self.memory)
        return tuple(self.compute if spread is None else spread for spread in own)  # type: ignore[return-value]

    def __bool__(self) -> bool:
        """Whether anything varies."""
        return any(self.kernels) or bool(self.communication or self.rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A slow part of the machine: one rank, or all ranks of one node."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    rank: PlaceOrNone = None
    """Which rank, counted from 0; null: a node is named."""
    node: PlaceOrNone = None
    """Which node, counted from 0; null: a rank is named."""
    compute: Share = 1.0
    """Speed of its kernels, as a share of the usual."""
    nic: Share = 1.0
    """Rate of its share of the NICs, as a share of the usual."""
    nvlink: Share = 1.0
    """Rate of its scale-up link, as a share of the usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Jitter of everything, and what is slow by name."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    jitter: Jitter | None = None
    """Null: as the cluster's profile has it."""
    slow: tuple[Slow, ...] = ()
    """Named stragglers."""
