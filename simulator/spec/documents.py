"""Documents that share a sequence: how long they are, and how they are packed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import Choice, Count, CountOrZero, Real

LENGTHS = ("", "fixed", "lognormal", "listed")
Slices: TypeAlias = Annotated[
    Literal["", "sequence", "document"],
    Choice(("", "sequence", "document")),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """Lengths of packed documents. Attention stays inside each: a document (block-diagonal) mask."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    distribution: Annotated[str, Choice(LENGTHS)] = ""
    """Of lengths; empty: each sequence is one document."""
    mean: Real = 0.0
    """Tokens of a document on average: each one's where fixed; of lognormal lengths too."""
    sigma: Real = 0.0
    """Of lognormal lengths: standard deviation of their natural logarithm."""
    lengths: tuple[Count, ...] = ()
    """Where listed: tokens of documents."""
    shares: tuple[Real, ...] = ()
    """Where listed: how many of the documents are so long, in any unit; empty: equally many."""
    packing: Annotated[str, Choice(("cut", "whole"))] = "cut"
    """One stream cut into sequences (pre-training), or whole documents and padding (fine-tuning)."""
    seed: CountOrZero = 0
    """Of the drawn documents."""
