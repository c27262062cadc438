"""Refitting the shipped kernel profiles from the published tables that their recipes name.

Run as ``python -m calibration.shipped TABLES OUTPUT``. The tables are not part of the project; each profile
names its sources (ai-dynamo/aiconfigurator silicon tables and MooreThreads/SimuMax system files, both
Apache-2.0).
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from calibration.compose import Streams
from calibration.fit.classes import fit_attention, fit_gemm, fit_moe, fit_stream
from calibration.fit.site import carried_backward, fit_site_attention, fit_site_gemm, fit_site_grouped
from calibration.fit.write import dump, profile_document
from calibration.generations import unmeasured_generations
from calibration.readers import Table, read_table
from calibration.recipes import (
    CUDNN_START,
    HOPPER_BACKWARD_MIXED,
    HOPPER_BACKWARD_SHARE,
    RECIPES,
    SITE_ATTENTION,
    SITE_BACKWARD,
    SITE_GEMM,
    SITE_MOE,
    SITE_STREAM,
    TRACE_STREAMS,
    Recipe,
)
from simulator.cost.attention import AttentionCoefficients
from simulator.cost.copy import CopyCoefficients
from simulator.cost.gemm import GemmCoefficients
from simulator.cost.kernels import peak_flops
from simulator.cost.memory_bound import MemoryCoefficients
from simulator.cost.profile import FORMAT_VERSION, AttentionKernel, Fitted, KernelProfile
from simulator.cost.profile_file import load_kernel_profile
from simulator.cost.rates import Rates
from simulator.spec.cluster import DeviceSpec
from simulator.spec.load import load_device

C = TypeVar("C")
TRACE = "deepseek-ai/profile-data (H800 training trace)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """A folder of measurement tables; files are read once."""

    folder: Path
    _read: Callable[[Path], Table] = field(default_factory=lambda: cache(read_table))

    def of(self, kind: str, tag: str) -> Table:
        """The table of a kind of kernel and a device, gzipped or not."""
        path = self.folder / f"{kind}_{tag}.csv"
        return self._read(path if path.exists() else path.with_name(f"{path.name}.gz"))

    def training(self, kind: str, gpu: str) -> Table:
        """A site's rows of a table of training kernels."""
        table = self._read(self.folder / f"{kind}_training_simumax.csv")
        return table.where(table["gpu"] == gpu)


def fit_device(recipe: Recipe, tables: Tables) -> KernelProfile:
    """The whole profile of one device."""
    device = load_device(recipe.device)
    streams = _streams(recipe, device, tables)
    gemm, blocks = _gemms(recipe, device, tables, streams)
    streams = {**streams, **blocks, **_default_stream(streams, gemm["bf16"])}
    kinds = {key: fit.coefficients for key, fit in streams.items()}
    bench = Streams(kinds=kinds, memory_bandwidth=device.memory_bandwidth, l2_bytes=device.l2_bytes)
    grouped, permutes = _grouped(recipe, device, tables, gemm, bench)
    measured = _attention(recipe, device, tables)
    ampere = measured if "flash2" in measured else load_kernel_profile("a100-sxm4-80gb").attention
    others = unmeasured_generations(device.architecture, measured, ampere["flash2"])
    return KernelProfile(
        format_version=FORMAT_VERSION,
        name=recipe.device,
        device=recipe.device,
        date=datetime.date.today().isoformat(),
        fitted_on={
            **device.peak_flops,
            "memory_bandwidth": device.memory_bandwidth,
            "sm_count": device.sm_count,
        },
        gemm=gemm,
        grouped_gemm=grouped,
        attention={**others, **measured},
        memory_bound={**streams, **permutes},
        copy={"default": _copy()},
        default_attention=list(measured)[-1],
    )


def _rates(device: DeviceSpec, dtype: str) -> Rates:
    return Rates(peak_flops(device, dtype), device.memory_bandwidth, device.sm_count)


def _streams(recipe: Recipe, device: DeviceSpec, tables: Tables) -> dict[str, Fitted[MemoryCoefficients]]:
    """Casting and finding maxima, where a table times them."""
    if not recipe.quantize:
        return {}
    table = tables.of("quantize", recipe.quantize)
    found = {}
    for kind, op, element_bytes in (("quantize", "scale_matrix", 3.0), ("amax", "computescale", 2.0)):
        rows = table.where(table["op"] == op)
        traffic = element_bytes * rows["m"] * rows["k"]
        launches = np.ones(len(rows))
        rates = _rates(device, "bf16")
        fit = fit_stream(rows, traffic, launches, rates, SITE_STREAM[0], l2_bytes=device.l2_bytes)
        found[kind] = _noted(fit, SITE_STREAM[1], transferred=recipe.quantize != recipe.tag)
    return found


def _gemms(
    recipe: Recipe, device: DeviceSpec, tables: Tables, streams: dict[str, Fitted[MemoryCoefficients]]
) -> tuple[dict[str, Fitted[GemmCoefficients]], dict[str, Fitted[MemoryCoefficients]]]:
    """Dense GEMMs of every precision the table has; with blockwise fp8 comes quantising in blocks."""
    table = tables.of("gemm", recipe.tag)
    kinds = {key: fit.coefficients for key, fit in streams.items()}
    bench = Streams(kinds=kinds, memory_bandwidth=device.memory_bandwidth, l2_bytes=device.l2_bytes)
    site, reason = SITE_GEMM[device.architecture]
    gemm: dict[str, Fitted[GemmCoefficients]] = {}
    blocks: dict[str, Fitted[MemoryCoefficients]] = {}
    for dtype in ("bf16", "fp8", "fp8_block", "nvfp4"):
        rows = table.where((table["dtype"] == dtype) & (table["source"] == recipe.gemm))
        if not len(rows):
            continue
        fit, block = fit_gemm(rows, dtype, _rates(device, dtype), bench, site)
        gemm[dtype] = _noted(fit, reason)
        if block:
            notes = "Fitted with the GEMM: the blockwise cast of this source's library."
            blocks["quantize_block"] = replace(
                streams["quantize"], coefficients=block, held_out=None, notes=notes
            )
    if "fp8" in gemm and device.architecture == "blackwell":
        gemm["mxfp8"] = replace(
            gemm["fp8"],
            basis="transfer",
            site=0.25,
            held_out=None,
            notes="As per-tensor fp8: no measurements.",
        )
    share = _accumulate(recipe, tables, gemm["bf16"].coefficients)
    return {
        dtype: replace(fit, coefficients=replace(fit.coefficients, accumulate=share))
        for dtype, fit in gemm.items()
    }, blocks


def _accumulate(recipe: Recipe, tables: Tables, base: GemmCoefficients) -> float:
    """Extra share of time of weight gradients that accumulate into fp32: the mean over the sites that
    timed it."""
    shares = []
    for site in recipe.accumulate:
        device = load_device({"a100_pcie": "a100-pcie-80gb", "b200": "b200"}[site])
        fit = fit_site_gemm(tables.training("gemm", site), _rates(device, "bf16"), base)
        shares.append(fit.coefficients.accumulate)
    return float(np.mean(shares))


def _default_stream(
    streams: dict[str, Fitted[MemoryCoefficients]], gemm: Fitted[GemmCoefficients]
) -> dict[str, Fitted[MemoryCoefficients]]:
    """Element-wise kernels nobody timed: between what casting and what streaming weights through a GEMM
    achieve."""
    evidence = [gemm.coefficients.bandwidth]
    fixed = 2e-6
    if "quantize" in streams:
        evidence.append(streams["quantize"].coefficients.bandwidth)
        fixed = streams["quantize"].coefficients.fixed_s
    default = Fitted(
        coefficients=MemoryCoefficients(bandwidth=float(np.mean(evidence)), fixed_s=fixed),
        random=0.10,
        site=SITE_STREAM[0],
        basis="physics",
        sources=gemm.sources,
        notes="Mean of the bandwidth that casting and thin GEMMs reach. " + SITE_STREAM[1],
    )
    traced = {
        kind: replace(
            default,
            coefficients=replace(default.coefficients, bandwidth=share * default.coefficients.bandwidth),
            random=0.15,
            site=site,
            basis="transfer",
            sources=(TRACE,),
            notes="The default's bandwidth times what the trace shows of this kernel beside plain ones.",
        )
        for kind, (share, site) in TRACE_STREAMS.items()
    }
    return {"default": default, "activation": default, "permute": default, **traced}


def _grouped(
    recipe: Recipe,
    device: DeviceSpec,
    tables: Tables,
    gemm: dict[str, Fitted[GemmCoefficients]],
    bench: Streams,
) -> tuple[dict[str, Fitted[GemmCoefficients]], dict[str, Fitted[MemoryCoefficients]]]:
    """Grouped GEMMs of every precision, and permuting as their sources do it."""
    table = tables.of("moe_gemm", recipe.moe)
    grouped: dict[str, Fitted[GemmCoefficients]] = {}
    permutes: dict[str, Fitted[MemoryCoefficients]] = {}
    transferred = recipe.moe != recipe.tag
    for dtype, dense in gemm.items():
        chosen = (table["dtype"] == dtype) & (table["moe_ep_size"] == 1)
        rows = table.where(chosen & ~np.char.endswith(table["kernel"], "min_latency"))
        if not len(rows):
            continue
        fit, permute = fit_moe(rows, dtype, _rates(device, dtype), bench, dense.coefficients, SITE_MOE[0])
        triton = bool(np.char.endswith(rows["kernel"], "triton").all())
        key = f"{dtype}+triton" if triton else dtype
        grouped[key] = _noted(fit, SITE_MOE[1], transferred=transferred)
        notes = "Fitted with the grouped GEMMs of whole expert layers: sorting, permuting, unpermuting."
        permutes[f"permute_{key}"] = _stream_of(fit, permute, notes)
    if recipe.training == "a100_pcie":  # its table has untuned Triton kernels, which no training library uses
        grouped = {"bf16": _site_grouped(recipe, tables, gemm["bf16"]), **grouped}
    if "mxfp8" in gemm and "fp8_block" in grouped:
        grouped["mxfp8"] = replace(grouped["fp8_block"], basis="transfer", site=0.3, held_out=None)
    plain = next(
        (permutes[f"permute_{dtype}"] for dtype in ("bf16",) if f"permute_{dtype}" in permutes), None
    )
    return grouped, {**permutes, **({"permute": plain, "unpermute": plain} if plain else {})}


def _stream_of(
    fit: Fitted[GemmCoefficients], coefficients: MemoryCoefficients, notes: str
) -> Fitted[MemoryCoefficients]:
    """Coefficients that came out of another class's fit, with its errors."""
    return Fitted(
        coefficients=coefficients,
        random=fit.random,
        site=fit.site,
        basis=fit.basis,
        sources=fit.sources,
        points=fit.points,
        notes=notes,
    )


def _site_grouped(
    recipe: Recipe, tables: Tables, dense: Fitted[GemmCoefficients]
) -> Fitted[GemmCoefficients]:
    """Grouped GEMMs of a training library, the site's own level taken out by its dense GEMMs."""
    rates = _rates(load_device("a100-pcie-80gb"), "bf16")
    level = fit_site_gemm(tables.training("gemm", recipe.training), rates, dense.coefficients).coefficients
    fit = fit_site_grouped(tables.training("grouped_gemm", recipe.training), rates, dense.coefficients)
    c = fit.coefficients
    efficiency = min(
        dense.coefficients.efficiency, c.efficiency * dense.coefficients.efficiency / level.efficiency
    )
    carried = replace(
        fit, coefficients=replace(c, efficiency=efficiency), site=SITE_MOE[0], random=0.08, confidence={}
    )
    return _noted(
        carried, "Six rows of a training library on an A100 PCIe, carried over by that site's dense GEMMs"
    )


def _attention(recipe: Recipe, device: DeviceSpec, tables: Tables) -> dict[str, AttentionKernel]:
    """The table's generation, and on Blackwell the training kernels of cuDNN, which are another."""
    table = tables.of("attention", recipe.tag)
    generation = recipe.attention
    rows = table.where(
        (table["dtype"] == "bf16")
        & (table["kv_dtype"] == "bf16")
        & (table["causal"] > 0)
        & (table["source"] == generation.source)
        & (table["kernel"] == generation.kernel)
        & np.isin(table["head_dim"], (64, 128, 256))
    )
    rates = _rates(device, "bf16")
    forward = _noted(fit_attention(rows, rates, SITE_ATTENTION[0]), SITE_ATTENTION[1])
    if not recipe.training:
        return {generation.name: AttentionKernel(forward=forward, backward=_hopper_backward(forward))}
    site = load_device({"a100_pcie": "a100-pcie-80gb", "b200": "b200"}[recipe.training])
    timed = tables.training("attention", recipe.training)
    if device.architecture == "blackwell":
        kernel = _cudnn(timed, _rates(site, "bf16"), transferred=recipe.tag != recipe.training)
        kernel = _faster_softmax(kernel, recipe.exponentials)
        return {generation.name: AttentionKernel(forward=forward, backward=kernel.backward), "cudnn": kernel}
    c, figures = carried_backward(timed, _rates(site, "bf16"), forward.coefficients)
    backward = Fitted(
        coefficients=c,
        random=0.05,
        site=SITE_BACKWARD[0],
        sources=tuple(sorted({str(s) for s in timed.source})),
        points=int(np.count_nonzero(timed["direction"] == "bwd")),
        held_out=figures,
        notes="Carried over from that site by its forward rows. " + SITE_BACKWARD[1],
    )
    return {generation.name: AttentionKernel(forward=forward, backward=backward)}


def _hopper_backward(forward: Fitted[AttentionCoefficients]) -> Fitted[AttentionCoefficients]:
    c = replace(
        forward.coefficients,
        efficiency=forward.coefficients.efficiency * HOPPER_BACKWARD_SHARE,
        mixed_dims=HOPPER_BACKWARD_MIXED,
    )
    return Fitted(
        coefficients=c,
        random=0.10,
        site=SITE_BACKWARD[0],
        basis="transfer",
        sources=(TRACE, "Shah 2024, FlashAttention-3"),
        points=1,
        notes="The forward's model at the published ratio of backward to forward rates.",
    )


def _cudnn(timed: Table, rates: Rates, *, transferred: bool) -> AttentionKernel:
    directions = {}
    for direction in ("fwd", "bwd"):
        fit = fit_site_attention(timed.where(timed["direction"] == direction), rates, CUDNN_START)
        fit = replace(fit, site=SITE_BACKWARD[0], random=max(fit.random, 0.05))
        directions[direction] = _noted(fit, SITE_BACKWARD[1], transferred=transferred)
    return AttentionKernel(forward=directions["fwd"], backward=directions["bwd"])


def _faster_softmax(kernel: AttentionKernel, exponentials: float) -> AttentionKernel:
    """The kernels on a device with more exponentials per clock.

    A query-key pair takes ``m``·(D + half_dim)/efficiency, m = 2 products forward and 5 backward. The part of
    ``half_dim`` in the forward is its exponential; the backward computes as many.
    """
    forward, backward = kernel.forward.coefficients, kernel.backward.coefficients
    saved = (1.0 - 1.0 / exponentials) * forward.half_dim
    of_backward = saved * (2.0 / forward.efficiency) / (5.0 / backward.efficiency)
    return AttentionKernel(
        forward=replace(kernel.forward, coefficients=replace(forward, half_dim=forward.half_dim - saved)),
        backward=replace(
            kernel.backward, coefficients=replace(backward, half_dim=backward.half_dim - of_backward)
        ),
    )


def _copy() -> Fitted[CopyCoefficients]:
    return Fitted(
        coefficients=CopyCoefficients(bandwidth=0.85, fixed_s=5e-6),
        random=0.05,
        site=0.10,
        basis="assumption",
        notes="Pinned copies reach about 26 of 31.5 GB/s on PCIe 4 x16 and 55 of 63 on PCIe 5 x16.",
    )


def _noted(fit: Fitted[C], notes: str, *, transferred: bool = False) -> Fitted[C]:
    text = " ".join(part.rstrip(".") + "." for part in (fit.notes, notes) if part)
    if not transferred:
        return replace(fit, notes=text)
    return replace(
        fit, notes=text + " Measured on a sibling.", basis="transfer", site=float(np.hypot(fit.site, 0.10))
    )


def main() -> None:
    """Fit every recipe and write the profiles."""
    parser = argparse.ArgumentParser(description="Refit the shipped kernel profiles from a folder of tables.")
    parser.add_argument("tables", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", default="", help="one device")
    arguments = parser.parse_args()
    tables = Tables(folder=arguments.tables)
    for recipe in RECIPES:
        if arguments.only in ("", recipe.device, recipe.tag):
            document = profile_document(fit_device(recipe, tables))
            (arguments.output / f"{recipe.device}.yaml").write_text(dump(document), encoding="utf-8")


if __name__ == "__main__":
    main()
