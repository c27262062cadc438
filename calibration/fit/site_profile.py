"""A profile from a user's own measurements: an overlay that replaces the classes they cover over a shipped
profile."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.compose import QUANTISED_BYTES
from calibration.fit.classes import TooFewError, fit_attention, fit_gemm, fit_moe, fit_stream
from calibration.fit.site import OWN_SITE, fit_site_attention, fit_site_gemm, fit_site_grouped
from calibration.fit.write import attention_document, fitted_document
from calibration.predict import streams_of
from calibration.readers import Table
from simulator.cost.kernels import Kernels
from simulator.cost.profile import FORMAT_VERSION, AttentionKernel, Fitted

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteProfile:
    """``document`` is the overlay's YAML mapping; ``refused`` says which classes lack data, and why."""

    document: dict[str, Any]
    refused: tuple[str, ...]


def fit_site_profile(
    name: str, kernels: Kernels, tables: Iterable[Table], *, source: str = "", title: str = ""
) -> SiteProfile:
    """Fit every class of kernels that the tables cover over the profile of ``kernels``.

    ``source`` keeps the rows of one source. Inference tables (``gemm``, ``attention``, ``moe``) give
    all coefficients of a class; training tables, which are short, only the efficiency and its
    companions.
    """
    refused: list[str] = []
    sections: dict[str, dict[str, Any]] = {}
    for table in tables:
        rows = table.where(table.source == source) if source else table
        if not len(rows):
            continue
        if table.kind not in _FITS:
            refused.append(f"{table.path}: {table.kind} tables do not fit kernels")
            continue
        for section, key, document in _attempts(_FITS[table.kind](rows, kernels), refused):
            sections.setdefault(section, {})[key] = document
    base = kernels.profile.name
    overlay = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "title": title,
        "base": base,
        "date": datetime.date.today().isoformat(),
        **sections,
    }
    return SiteProfile(document=overlay, refused=tuple(refused))


Attempt = tuple[str, Callable[[], Iterable[tuple[str, str, dict[str, Any]]]]]


def _attempts(attempts: Iterable[Attempt], refused: list[str]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    """What could be fitted; the rest is refused by name."""
    for what, attempt in attempts:
        try:
            yield from attempt()
        except TooFewError as error:
            refused.append(f"{what}: {error}")


def _gemms(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    streams = streams_of(kernels)
    for dtype in map(str, np.unique(table["dtype"])):
        rows = table.where(table["dtype"] == dtype)

        def attempt(rows: Table = rows, dtype: str = dtype) -> Iterable[tuple[str, str, dict[str, Any]]]:
            share = kernels.gemm_fit(dtype).coefficients.accumulate
            fit, _ = fit_gemm(rows, dtype, kernels.rates(dtype), streams, OWN_SITE)
            kept = replace(fit, coefficients=replace(fit.coefficients, accumulate=share))
            yield "gemm", dtype, fitted_document(kept)

        yield f"gemm {dtype}", attempt


def _training_gemms(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    yield from _by_dtype(table, kernels, "gemm", kernels.gemm_fit, fit_site_gemm)


def _training_grouped(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    yield from _by_dtype(table, kernels, "grouped_gemm", kernels.grouped_gemm_fit, fit_site_grouped)


def _by_dtype(
    table: Table,
    kernels: Kernels,
    section: str,
    fitted: Callable[[str], Fitted[Any]],
    fit: Callable[..., Fitted[Any]],
) -> Iterable[Attempt]:
    for dtype in map(str, np.unique(table["dtype"])):
        rows = table.where(table["dtype"] == dtype)

        def attempt(rows: Table = rows, dtype: str = dtype) -> Iterable[tuple[str, str, dict[str, Any]]]:
            found = fit(rows, kernels.rates(dtype), fitted(dtype).coefficients)
            yield section, dtype, fitted_document(found)

        yield f"{section} {dtype}", attempt


def _attention(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    """A forward table refits the forward of the default generation."""
    wanted = (table["dtype"] == "bf16") & (table["causal"] > 0) & (table["direction"] == "fwd")
    rows = table.where(wanted & (table["kv_dtype"] == "bf16"))
    generation = kernels.profile.default_attention

    def attempt() -> Iterable[tuple[str, str, dict[str, Any]]]:
        forward = fit_attention(rows, kernels.rates("bf16"), OWN_SITE)
        backward = kernels.profile.attention[generation].backward
        yield "attention", generation, attention_document(AttentionKernel(forward=forward, backward=backward))

    yield "attention bf16", attempt


def _training_attention(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    generation = kernels.profile.default_attention
    kernel = kernels.profile.attention[generation]

    def attempt() -> Iterable[tuple[str, str, dict[str, Any]]]:
        rates = kernels.rates("bf16")
        both = {}
        for direction, fit in (("fwd", kernel.forward), ("bwd", kernel.backward)):
            rows = table.where(table["direction"] == direction)
            both[direction] = fit_site_attention(rows, rates, fit.coefficients)
        found = AttentionKernel(forward=both["fwd"], backward=both["bwd"])
        yield "attention", generation, attention_document(found)

    yield "attention training", attempt


def _moe(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    streams = streams_of(kernels)
    for dtype in map(str, np.unique(table["dtype"])):
        rows = table.where((table["dtype"] == dtype) & (table["moe_ep_size"] == 1))

        def attempt(rows: Table = rows, dtype: str = dtype) -> Iterable[tuple[str, str, dict[str, Any]]]:
            dense = kernels.gemm_fit(dtype).coefficients
            fit, permute = fit_moe(rows, dtype, kernels.rates(dtype), streams, dense, OWN_SITE)
            yield "grouped_gemm", dtype, fitted_document(fit)
            stream = Fitted(coefficients=permute, random=fit.random, site=OWN_SITE, points=fit.points)
            yield "memory_bound", f"permute_{dtype}", fitted_document(stream)

        yield f"moe {dtype}", attempt


def _quantize(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    for op, kind, size in (
        ("scale_matrix", "quantize", 2.0 + QUANTISED_BYTES["fp8"]),
        ("computescale", "amax", 2.0),
    ):
        rows = table.where(table["op"] == op)
        traffic = size * rows["m"] * rows["k"]

        def attempt(
            rows: Table = rows, traffic: Array = traffic, kind: str = kind
        ) -> Iterable[tuple[str, str, dict[str, Any]]]:
            ones, l2_bytes = np.ones(len(rows)), kernels.device.l2_bytes
            fit = fit_stream(rows, traffic, ones, kernels.rates("bf16"), OWN_SITE, l2_bytes=l2_bytes)
            yield "memory_bound", kind, fitted_document(fit)

        yield kind, attempt


def _memory_bound(table: Table, kernels: Kernels) -> Iterable[Attempt]:
    for kind in map(str, np.unique(table["kind"])):
        rows = table.where(table["kind"] == kind)

        def attempt(rows: Table = rows, kind: str = kind) -> Iterable[tuple[str, str, dict[str, Any]]]:
            traffic = rows["read_bytes"] + rows["write_bytes"]
            fit = fit_stream(rows, traffic, rows["kernels"], kernels.rates("bf16"), OWN_SITE)
            yield "memory_bound", kind, fitted_document(fit)

        yield kind, attempt


_FITS: Mapping[str, Callable[[Table, Kernels], Iterable[Attempt]]] = {
    "gemm": _gemms,
    "gemm_training": _training_gemms,
    "grouped_gemm_training": _training_grouped,
    "attention": _attention,
    "attention_training": _training_attention,
    "moe": _moe,
    "quantize": _quantize,
    "memory_bound": _memory_bound,
}
