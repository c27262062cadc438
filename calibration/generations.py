"""Attention kernels of generations that no table times: published rates, on the shape of a measured one.

A generation's rate on long sequences is given as a share of the dense peak at head dimension 128. How rate
depends on shape is that of FlashAttention-2 as measured on A100: the kernels divide the work alike, and on
Hopper they are the same code, which uses Ampere's tensor-core instructions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simulator.cost.attention import AttentionCoefficients
from simulator.cost.profile import AttentionKernel, Fitted

HEAD_DIM = 128  # of the published rates
RANDOM = 0.10  # from shape to shape, beside what the shape's own model leaves

FLASH1 = "Dao 2022, FlashAttention; rates in Dao 2023 (arXiv 2307.08691)"
FLASH2 = "Dao 2023, FlashAttention-2 (arXiv 2307.08691)"
FLASH3 = "Shah 2024, FlashAttention-3 (arXiv 2407.08608)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One direction of a generation.

    ``share`` is of the dense peak, or of FlashAttention-2's rate on the same device where ``relative``.
    ``site`` is the standard error that the published range amounts to.
    """

    share: float
    site: float
    source: str
    notes: str
    relative: bool = False
    basis: Literal["literature", "transfer"] = "literature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Both directions of one generation of kernels."""

    forward: Published
    backward: Published


_TRITON = Generation(
    forward=Published(
        share=1 / 1.4,
        relative=True,
        site=0.20,
        source=FLASH2,
        notes="FlashAttention-2 is 1.3-1.5 times as fast as FlashAttention in Triton (section 4.1).",
    ),
    backward=Published(
        share=1 / 2.0,
        relative=True,
        site=0.25,
        source=FLASH2,
        notes="FlashAttention-2 is about twice as fast as FlashAttention in Triton (section 4.1).",
    ),
)
_FLASH1_A100 = Generation(
    forward=Published(share=0.40, site=0.25, source=FLASH1, notes="30-50 % of the peak on A100 (section 1)."),
    backward=Published(
        share=0.30, site=0.20, source=FLASH1, notes="25-35 % of the peak on A100 (section 1)."
    ),
)
_FLASH1_TRANSFERRED = Generation(
    forward=Published(
        share=0.57, relative=True, site=0.30, basis="transfer", source=FLASH1,
        notes="Against FlashAttention-2 as on A100, 40 % and 70 % of the peak.",
    ),
    backward=Published(
        share=0.50, relative=True, site=0.30, basis="transfer", source=FLASH1,
        notes="Against FlashAttention-2 as on A100, 30 % and 60 % of the peak.",
    ),
)  # fmt: skip
# Both directions together reach 335 of 989 TFLOP/s on H100 (FlashAttention-2, section 4.1), the forward about
# 35 % of the peak (FlashAttention-3, section 1): 7 / 0.339 = 2 / 0.35 + 5 / 0.334.
_FLASH2_HOPPER = Generation(
    forward=Published(
        share=0.35, site=0.20, source=FLASH3, notes="About 35 % of the peak on H100 (section 1)."
    ),
    backward=Published(
        share=0.334,
        site=0.20,
        source=FLASH2,
        notes="335 TFLOP/s on H100 with the forward (section 4.1).",
    ),
)

# architecture -> older generations, beside what the device's recipe measures
GENERATIONS: dict[str, dict[str, Generation]] = {
    "ampere": {"flash1": _FLASH1_A100, "triton": _TRITON},
    "hopper": {"flash2": _FLASH2_HOPPER, "flash1": _FLASH1_TRANSFERRED, "triton": _TRITON},
}
# cuDNN's kernels on Hopper are within some 10 % of FlashAttention-3's (figures 5 and 6 there).
CUDNN_HOPPER_SITE = 0.15


def unmeasured_generations(
    architecture: str, measured: dict[str, AttentionKernel], ampere_flash2: AttentionKernel
) -> dict[str, AttentionKernel]:
    """The kernels of an architecture's other generations; ``ampere_flash2`` gives the dependence on shape."""
    kernels: dict[str, AttentionKernel] = {}
    for name, generation in GENERATIONS.get(architecture, {}).items():
        base = measured.get("flash2") or kernels.get("flash2")
        kernels[name] = AttentionKernel(
            forward=_derived(generation.forward, ampere_flash2.forward, base.forward if base else None),
            backward=_derived(generation.backward, ampere_flash2.backward, base.backward if base else None),
        )
    if "flash3" in measured:
        kernels["cudnn"] = AttentionKernel(
            forward=_as_flash3(measured["flash3"].forward), backward=_as_flash3(measured["flash3"].backward)
        )
    return kernels


def long_sequence_share(c: AttentionCoefficients) -> float:
    """Share of the dense peak that a kernel tends to on long sequences, at head dimension 128."""
    return c.efficiency * HEAD_DIM / (HEAD_DIM + c.half_dim)


def _derived(
    published: Published,
    shape: Fitted[AttentionCoefficients],
    flash2: Fitted[AttentionCoefficients] | None,
) -> Fitted[AttentionCoefficients]:
    share, site = published.share, published.site
    if published.relative:
        assert flash2 is not None
        share *= long_sequence_share(flash2.coefficients)
        site = float(np.hypot(site, flash2.site))
    c = shape.coefficients
    efficiency = share * (HEAD_DIM + c.half_dim) / HEAD_DIM
    return Fitted(
        coefficients=replace(c, efficiency=efficiency),
        random=RANDOM,
        site=site,
        basis=published.basis,
        sources=(published.source, *shape.sources),
        notes=f"{published.notes} Dependence on shape: FlashAttention-2 on A100.",
    )


def _as_flash3(fit: Fitted[AttentionCoefficients]) -> Fitted[AttentionCoefficients]:
    return Fitted(
        coefficients=fit.coefficients,
        random=max(fit.random, RANDOM),
        site=float(np.hypot(fit.site, CUDNN_HOPPER_SITE)),
        basis="transfer",
        sources=(FLASH3, *fit.sources),
        notes="As FlashAttention-3, whose published rates cuDNN's follow within some 10 %.",
    )
