"""What was fitted on measurements: the coefficients of the kernel models of one device, and how far off
they are.

Datasheet facts are not here (they are in :class:`simulator.spec.cluster.DeviceSpec`); a coefficient is a
fraction of one of them, a time, or a size. Every class of kernels says where its coefficients come from and
how far off its model was on measurements it had not seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Generic, Literal, TypeVar

from pydantic import ConfigDict

from simulator.cost.attention import AttentionCoefficients
from simulator.cost.copy import CopyCoefficients
from simulator.cost.gemm import GemmCoefficients
from simulator.cost.memory_bound import MemoryCoefficients

FORMAT_VERSION = 1
C = TypeVar("C")

Basis = Literal["fit", "transfer", "literature", "physics", "assumption"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Errors on measurements that the fit had not seen: |predicted / measured − 1|, and the signed median."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    points: int
    median: float
    p90: float
    bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted(Generic[C]):
    """Coefficients of one kernel class with their errors and their origin.

    ``random`` and ``site`` are relative standard errors: ``random`` differs from shape to shape (the
    residual of the model), ``site`` is common to all kernels of the class on one machine. ``sustained``
    multiplies the compute rate: what a training step keeps under its power limit, over what a short
    benchmark reaches.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    coefficients: C
    random: float
    site: float
    sustained: float = 1.0
    sustained_source: str = ""
    basis: Basis = "fit"
    sources: tuple[str, ...] = ()
    points: int = 0
    held_out: HeldOut | None = None
    confidence: dict[str, tuple[float, float]] = field(default_factory=dict)  # 90 % interval by coefficient
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernel:
    """One generation of fused attention kernels."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    forward: Fitted[AttentionCoefficients]
    backward: Fitted[AttentionCoefficients]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelProfile:
    """All fitted coefficients of one device.

    ``gemm`` and ``grouped_gemm`` are keyed by precision (fp16 uses bf16's), ``attention`` by kernel
    generation, ``memory_bound`` by the kind of :class:`simulator.graph.operators.MemoryBound`
    (``default`` for the others), ``copy`` by kind of copy. ``fitted_on`` records the datasheet values
    the fractions refer to.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format_version: int
    name: str
    title: str = ""
    device: str = ""
    date: str = ""
    fitted_on: dict[str, float] = field(default_factory=dict)
    gemm: dict[str, Fitted[GemmCoefficients]]
    grouped_gemm: dict[str, Fitted[GemmCoefficients]]
    attention: dict[str, AttentionKernel]
    memory_bound: dict[str, Fitted[MemoryCoefficients]]
    copy: dict[str, Fitted[CopyCoefficients]]
    default_attention: str
    notes: str = ""
