"""Optimizers: what they keep for each parameter of a rank's shard, and what a step reads and writes.

Mixed precision keeps an fp32 master of every 16-bit weight (Micikevicius 2018). A precision-aware optimizer
stores it as 16 more bits beside the weight, and moments in fewer bits (Megatron-LM's
``--use-precision-aware-optimizer``; DeepSeek-V3 report, section 3.3.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.graph.operators import DTYPE_BYTES, Gemm, MemoryBound, Operator
from simulator.spec.run import FULL_PRECISIONS

PARAMETER_BYTES = 2.0  # a weight in the model's 16-bit format
MASTER_BYTES = {"fp32": 4.0, "remainder": 2.0, "none": 0.0}
MOMENTS = {"adam": 2, "adamw": 2, "sgd": 0, "sgd-momentum": 1, "muon": 1}
NEWTON_SCHULZ_STEPS = 5  # Jordan 2024, "Muon"; Liu 2025 (Moonlight), algorithm 1


def parameter_bytes(dtype: str) -> float:
    """Of a weight beside products of that format."""
    return DTYPE_BYTES[dtype] if dtype in FULL_PRECISIONS else PARAMETER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """``count`` weight matrices of one shape, held by a rank."""

    rows: int
    columns: int
    count: int

    @property
    def elements(self) -> float:
        """Of all of them."""
        return float(self.rows * self.columns * self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer by name, and the formats of its state.

    ``master``: ``fp32``, ``remainder`` (the low 16 bits of an fp32 number whose high ones are the weight), or
    ``none`` (the weight, of ``parameter_bytes``, is fp32 itself).
    ``fused``: one pass over everything (Apex, Transformer Engine); else Adam is PyTorch's default, a pass per
    operator over all tensors (``foreach``).
    """

    name: str = "adamw"
    master: str = "fp32"
    moment_dtype: str = "fp32"
    fused: bool = True
    parameter_bytes: float = PARAMETER_BYTES

    @property
    def takes_matrices(self) -> bool:
        """Whether it updates weights matrix by matrix, not element by element."""
        return self.name == "muon"

    @property
    def moments_bytes(self) -> float:
        """Of one parameter's moments."""
        return MOMENTS[self.name] * DTYPE_BYTES[self.moment_dtype]

    @property
    def state_bytes(self) -> float:
        """Of one parameter, its weight and gradient not counted."""
        return MASTER_BYTES[self.master] + self.moments_bytes

    def step(self, shard: float, grad_bytes: float, *, copy: bool = True) -> tuple[MemoryBound, ...]:
        """The update of ``shard`` parameters: gradient, master and moments read; master and moments written.

        An fp32 master takes fp32 gradients, so that others are cast first, and is copied to the model's
        weights (``copy``) by a kernel of its own; with a remainder the weight is read and written as the
        master's other half, without a master as it is.
        """
        if self.master != "fp32":
            state = self.state_bytes + self.parameter_bytes
            return (_kernel("optimizer", shard, grad_bytes + state, state),)
        wide, state = DTYPE_BYTES["fp32"], self.state_bytes
        casts = () if grad_bytes == wide else (_kernel("cast_gradients", shard, grad_bytes, wide),)
        update: tuple[MemoryBound, ...] = (_kernel("optimizer", shard, wide + state, state),)
        if not self.fused and self.name in ("adam", "adamw"):
            update = self._by_operator(shard)
        copies = (_kernel("copy_parameters", shard, wide, self.parameter_bytes),) if copy else ()
        return (*casts, *update, *copies)

    def _by_operator(self, shard: float) -> tuple[MemoryBound, ...]:
        """Adam as PyTorch's ``foreach`` operators, gradients clipped before; all but moments in fp32."""
        w = DTYPE_BYTES["fp32"]  # of weights, gradients and the denominator
        m = DTYPE_BYTES[self.moment_dtype]
        passes = (
            ("clip", w, w),
            ("decay", w, w),
            ("first_moment", m + w, m),
            ("second_moment_decay", m, m),
            ("second_moment", m + w, m),
            ("root", m, w),
            ("correction", w, w),
            ("epsilon", w, w),
            ("update", w + m + w, w),
        )
        return tuple(_kernel(f"optimizer.{name}", shard, read, written) for name, read, written in passes)


def _kernel(name: str, elements: float, read: float, written: float) -> MemoryBound:
    """Bytes per element read and written."""
    return MemoryBound(
        name=name, kind="optimizer", read_bytes=elements * read, write_bytes=elements * written
    )


def newton_schulz(matrices: tuple[Matrix, ...], ranks: int) -> tuple[Operator, ...]:
    """Muon's orthogonalisation in bf16, of matrices dealt out over ``ranks``.

    Each step is X·Xᵀ, its square, and their product with X, for X with no more rows than columns (Jordan
    2024; Liu 2025, algorithm 1).
    """
    counts: dict[tuple[int, int], int] = {}
    for matrix in matrices:
        short, long = sorted((matrix.rows, matrix.columns))
        counts[short, long] = counts.get((short, long), 0) + matrix.count
    ops: list[Operator] = []
    for (short, long), count in counts.items():
        own = -(-count // ranks)  # the rank with most of them is awaited
        gram = Gemm(name="newton_schulz.gram", m=short, n=short, k=long, batch=own)
        square = Gemm(name="newton_schulz.square", m=short, n=short, k=short, batch=own)
        apply = Gemm(name="newton_schulz.apply", m=short, n=long, k=short, batch=own)
        ops += [gram, square, apply] * NEWTON_SCHULZ_STEPS
    return tuple(ops)
