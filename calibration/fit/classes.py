"""One fit per class of kernels: rows of a table in, coefficients with their errors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from calibration.compose import (
    BLOCKWISE,
    Streams,
    attention_cores,
    gemm_row_times,
    moe_row_times,
    stream_times,
)
from calibration.fit.solve import Values, solve, thinned
from calibration.fit.split import errors, held_out, random_error
from calibration.readers import Table
from calibration.triton import is_triton
from simulator.cost.attention import AttentionCoefficients, attention_times
from simulator.cost.gemm import GemmCoefficients
from simulator.cost.memory_bound import MemoryCoefficients
from simulator.cost.profile import Fitted
from simulator.cost.rates import Rates
from simulator.spec.errors import Problem, SpecError

C = TypeVar("C")
Array = npt.NDArray[np.float64]
Bounds = Mapping[str, tuple[float, float]]

LEAST_ROWS = {"gemm": 200, "attention": 200, "moe": 100, "quantize": 50, "memory_bound": 8, "copy": 6}


class TooFewError(SpecError):
    """A class of kernels has too few measurements to fit."""

    def __init__(self, table: Table, least: int) -> None:
        rule = f"has {len(table)} {table.kind} rows to fit on; it needs at least {least}"
        super().__init__(Problem(file=table.path, rule=rule))


GEMM_START = GemmCoefficients(
    efficiency=0.8,
    half_tile=0.9,
    quarter_tile=0.9,
    eighth_tile=0.7,
    prologue_k=100.0,
    wave=0.3,
    bandwidth=0.8,
    ramp_s=1e-6,
    overlap=3.0,
    split_traffic=0.5,
    split_s=2e-6,
    throttle=0.15,
    throttle_s=5e-3,
    fixed_s=2.5e-6,
)
GEMM_BOUNDS = {
    "efficiency": (0.2, 1.0),
    "half_tile": (0.3, 1.0),
    "quarter_tile": (0.2, 1.0),
    "eighth_tile": (0.1, 1.0),
    "prologue_k": (0.0, 2000.0),
    "wave": (0.0, 1.0),
    "bandwidth": (0.3, 1.0),
    "ramp_s": (0.0, 2e-5),
    "overlap": (1.0, 8.0),
    "split_traffic": (0.0, 8.0),
    "split_s": (0.0, 2e-5),
    "throttle": (0.0, 0.5),
    "throttle_s": (1e-4, 1e-1),
    "fixed_s": (0.0, 2e-5),
}
GROUPED_BOUNDS = {
    name: GEMM_BOUNDS[name]
    for name in (
        "efficiency",
        "half_tile",
        "quarter_tile",
        "eighth_tile",
        "prologue_k",
        "wave",
        "bandwidth",
        "overlap",
    )
}
ATTENTION_START = AttentionCoefficients(
    efficiency=0.9,
    half_dim=40.0,
    prologue_keys=50.0,
    tail=0.5,
    lone=0.5,
    bandwidth=0.8,
    kv_bandwidth=0.4,
    throttle=0.1,
    throttle_s=5e-3,
    fixed_s=1e-5,
)
ATTENTION_BOUNDS = {
    "efficiency": (0.1, 1.0),
    "half_dim": (0.0, 400.0),
    "prologue_keys": (0.0, 3000.0),
    "tail": (0.0, 1.0),
    "lone": (0.0, 2.0),
    "bandwidth": (0.05, 1.0),
    "kv_bandwidth": (0.05, 1.0),
    "throttle": (0.0, 0.5),
    "throttle_s": (1e-4, 1e-1),
    "fixed_s": (0.0, 1e-4),
}
STREAM_BOUNDS = {"bandwidth": (0.05, 1.0), "fixed_s": (0.0, 1e-4)}
WARM_BOUNDS = {**STREAM_BOUNDS, "warm": (1.0, 4.0)}


def fit_gemm(
    table: Table, dtype: str, rates: Rates, streams: Streams, site: float
) -> tuple[Fitted[GemmCoefficients], MemoryCoefficients | None]:
    """Dense GEMMs of one precision; blockwise fp8 rows also give the cost of quantising in blocks.

    Error figures are those of large products (m, n, k of 512 and more), which training is made of.
    """
    block = streams.kinds["quantize"] if dtype in BLOCKWISE else None

    def predict(rows: Table, values: Values) -> Array:
        own = {"quantize_block": MemoryCoefficients(**_part(values, "quantize"))} if block else {}
        trial = replace(streams, kinds={**streams.kinds, **own})
        return gemm_row_times(rows, dtype, rates, GemmCoefficients(**_part(values, "gemm")), trial)

    start, bounds = _named("gemm", GEMM_START, GEMM_BOUNDS)
    if block:
        start, bounds = _joined((start, bounds), _named("quantize", block, STREAM_BOUNDS))
    large = (table["m"] >= 512) & (table["n"] >= 512) & (table["k"] >= 512)
    fitted = _fit(table, predict, start, bounds, site, scored=large)
    values = fitted.coefficients
    gemm = replace(GEMM_START, **_part(values, "gemm"))
    return _with(fitted, gemm, "gemm"), MemoryCoefficients(**_part(values, "quantize")) if block else None


def fit_attention(table: Table, rates: Rates, site: float) -> Fitted[AttentionCoefficients]:
    """One attention kernel in one direction, at training lengths (1024 and longer)."""

    def predict(rows: Table, values: Values) -> Array:
        return attention_times(attention_cores(rows), rates, AttentionCoefficients(**_part(values, "core")))

    fitted = _fit(
        table.where(table["seq"] >= 1024), predict, *_named("core", ATTENTION_START, ATTENTION_BOUNDS), site
    )
    return _with(fitted, AttentionCoefficients(**_part(fitted.coefficients, "core")), "core")


def fit_stream(
    table: Table, traffic: Array, kernels: Array, rates: Rates, site: float, *, l2_bytes: float = 0.0
) -> Fitted[MemoryCoefficients]:
    """A memory-bound kernel; ``l2_bytes`` where the benchmark repeats it on the same tensor."""

    def predict(rows: Table, values: Values) -> Array:
        c = MemoryCoefficients(**_part(values, "stream"))
        return stream_times(rows["traffic"], rows["launches"], rates.memory_bandwidth, c, l2_bytes)

    columns = {**table.columns, "traffic": traffic, "launches": kernels}
    rows = Table(kind=table.kind, path=table.path, columns=columns, lines=table.lines)
    start = MemoryCoefficients(bandwidth=0.7, fixed_s=2e-6, warm=1.5)
    named = _named("stream", start, WARM_BOUNDS if l2_bytes else STREAM_BOUNDS)
    fitted = _fit(rows, predict, *named, site)
    return _with(fitted, MemoryCoefficients(**_part(fitted.coefficients, "stream")), "stream")


def fit_moe(
    table: Table, dtype: str, rates: Rates, streams: Streams, dense: GemmCoefficients, site: float
) -> tuple[Fitted[GemmCoefficients], MemoryCoefficients]:
    """Grouped GEMMs of one precision, from whole balanced expert layers of 1024 and more tokens.

    Returns the GEMM's coefficients and those of permuting. ``dense``, the dense GEMM of the precision,
    gives what expert layers do not show (split k, throttling, the empty kernel's time) and bounds the
    efficiency.
    """
    rows = table.where((table["num_tokens"] >= 1024) & (table["distribution"] == "balanced"))
    own = {**GROUPED_BOUNDS, "efficiency": (0.1, dense.efficiency)}
    if is_triton(rows).any():
        own["unaligned"] = (0.1, 1.0)

    def predict(some: Table, values: Values) -> Array:
        permute = MemoryCoefficients(**_part(values, "permute"))
        trial = replace(streams, kinds={**streams.kinds, "permute": permute})
        return moe_row_times(some, dtype, rates, grouped(values), trial)

    def grouped(values: Values) -> GemmCoefficients:
        return replace(dense, **_part(values, "gemm"))

    start, bounds = _joined(
        _named("gemm", GEMM_START, own), _named("permute", streams.kinds["permute"], STREAM_BOUNDS)
    )
    fitted = _fit(rows, predict, start, bounds, site)
    values = fitted.coefficients
    return _with(fitted, grouped(values), "gemm"), MemoryCoefficients(**_part(values, "permute"))


def _named(prefix: str, start: object, bounds: Bounds) -> tuple[Values, Bounds]:
    """Starting values and bounds of some fields of a coefficients object, named ``prefix.field``."""
    return (
        {f"{prefix}.{name}": float(getattr(start, name)) for name in bounds},
        {f"{prefix}.{name}": bound for name, bound in bounds.items()},
    )


def _joined(one: tuple[Values, Bounds], other: tuple[Values, Bounds]) -> tuple[Values, Bounds]:
    return {**one[0], **other[0]}, {**one[1], **other[1]}


def _part(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values of one object, by field."""
    return {name.removeprefix(f"{prefix}."): v for name, v in values.items() if name.startswith(f"{prefix}.")}


def _fit(
    table: Table,
    predict: Callable[[Table, Values], Array],
    start: Values,
    bounds: Bounds,
    site: float,
    *,
    scored: npt.NDArray[np.bool_] | None = None,
) -> Fitted[Values]:
    """Fit on most groups of shapes, judge on the ``scored`` rows of the others; half of the unscored
    rows are used."""
    least = LEAST_ROWS[table.kind]
    if len(table) < least:
        raise TooFewError(table, least)
    back = held_out(table)
    used = ~back if scored is None else ~back & (scored | (np.arange(len(table)) % 2 == 0))
    training = table.where(used)
    training = training.where(thinned(len(training)))
    solution = solve(lambda values: predict(training, values), training.seconds, start, bounds)
    judged = table.where(back if scored is None else back & scored)
    predicted = predict(judged, solution.values)
    return Fitted(
        coefficients=solution.values,
        random=random_error(predicted, judged.seconds),
        site=site,
        sources=tuple(sorted({str(s) for s in table.source})),
        points=len(table),
        held_out=errors(predicted, judged.seconds),
        confidence=solution.confidence,
    )


def _with(fitted: Fitted[Any], coefficients: C, prefix: str) -> Fitted[C]:
    """The same fit with the values of one prefix as an object of their own."""
    return replace(fitted, coefficients=coefficients, confidence=_part(fitted.confidence, prefix))
