"""How evenly a router spreads tokens over experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict

from simulator.spec.fields import Flag, Number, Real


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertLoad:
    """How evenly a router spreads tokens. Benchmarks often force balance; real routing is uneven."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    imbalance: Annotated[float, Number(1.0)] = 1.0
    """Rows on the fullest rank of an EP group over the mean."""
    variation: Real = 0.0
    """Standard deviation over mean of the experts' popularity, drawn for each layer (gamma); 0: not drawn."""
    capacity_factor: Real = 0.0
    """Rows an expert takes at most, in shares of the mean; the rest is dropped; 0: dropless."""
    pad_to_capacity: Flag = False
    """Every expert gets exactly its capacity, padded where it has fewer rows."""
