"""Fits on a site's own training kernels: few rows, so few coefficients move and the rest stay those of the
device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from calibration.compose import OPERAND_BYTES, attention_cores
from calibration.fit.classes import TooFewError
from calibration.fit.solve import Values, solve
from calibration.fit.split import errors, held_out, random_error
from calibration.readers import Table
from simulator.cost.attention import AttentionCoefficients, attention_times
from simulator.cost.gemm import GemmCoefficients, Products, gemm_times
from simulator.cost.profile import Fitted, HeldOut
from simulator.cost.rates import Rates

C = TypeVar("C")
Array = npt.NDArray[np.float64]

LEAST_ROWS = 6
OWN_SITE = 0.03  # what is left between two runs on one machine: releases of one recipe differ by 2-4 %
_OUTPUT = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
_EFFICIENCY = (0.1, 1.0)


def training_gemm_times(table: Table, rates: Rates, c: GemmCoefficients) -> Array:
    """Rows of forward, dgrad and wgrad GEMMs; a weight gradient may accumulate into fp32."""
    accumulate = np.char.lower(table["accumulate"]) == "true"
    output = np.array([_OUTPUT.get(str(dtype), 2.0) for dtype in table["out_dtype"]]) * np.where(
        accumulate, 2.0, 1.0
    )
    operand = np.array([OPERAND_BYTES.get(str(dtype), 2.0) for dtype in table["dtype"]])
    products = Products.of(
        m=table["m"], n=table["n"], k=table["k"], batch=table["b"], operand_bytes=operand, output_bytes=output
    )
    return gemm_times(products, rates, c) * np.where(accumulate, 1.0 + c.accumulate, 1.0)


def training_grouped_times(table: Table, rates: Rates, c: GemmCoefficients) -> Array:
    """Rows of grouped GEMMs: forward, the gradient of the input, the gradient of the weights (kept in fp32).

    Every stage is published with the forward's (m, n, k) per group.
    """
    m, n, k = table["m_per_group"], table["n"], table["k"]
    wgrad, dgrad = (np.char.endswith(table["stage"], end) for end in ("_w", "_act"))
    products = Products.of(
        m=np.where(wgrad, n, m),
        n=np.where(wgrad | dgrad, k, n),
        k=np.where(wgrad, m, np.where(dgrad, n, k)),
        batch=table["num_groups"],
        output_bytes=np.where(wgrad, 8.0, 2.0),
    )
    return gemm_times(products, rates, c) * np.where(wgrad, 1.0 + c.accumulate, 1.0)


def fit_site_gemm(table: Table, rates: Rates, base: GemmCoefficients) -> Fitted[GemmCoefficients]:
    """The share of the peak this site keeps, and what accumulating weight gradients costs there."""
    bounds = {
        "efficiency": _EFFICIENCY,
        "prologue_k": (0.0, 2000.0),
        "accumulate": (0.0, 0.5),
        "fixed_s": (0.0, 5e-5),
    }

    def predict(rows: Table, c: GemmCoefficients) -> Array:
        return training_gemm_times(rows, rates, c)

    return _fit(table, predict, base, bounds)


def fit_site_grouped(table: Table, rates: Rates, base: GemmCoefficients) -> Fitted[GemmCoefficients]:
    """The same for grouped GEMMs."""
    bounds = {"efficiency": _EFFICIENCY, "prologue_k": (0.0, 2000.0), "accumulate": (0.0, 0.5)}

    def predict(rows: Table, c: GemmCoefficients) -> Array:
        return training_grouped_times(rows, rates, c)

    return _fit(table, predict, base, bounds)


def fit_site_attention(
    table: Table, rates: Rates, base: AttentionCoefficients
) -> Fitted[AttentionCoefficients]:
    """One direction of attention on a site."""
    bounds = {
        "efficiency": _EFFICIENCY,
        "mixed_dims": (0.4, 1.0),
        "prologue_keys": (0.0, 3000.0),
        "tail": (0.0, 1.0),
        "lone": (0.0, 4.0),
        "fixed_s": (0.0, 2e-4),
    }

    def predict(rows: Table, c: AttentionCoefficients) -> Array:
        return attention_times(attention_cores(rows), rates, c)

    return _fit(table, predict, base, bounds)


def carried_backward(
    table: Table, rates: Rates, forward: AttentionCoefficients
) -> tuple[AttentionCoefficients, HeldOut]:
    """Backward coefficients of a device from a site that timed both directions.

    The site's own level cancels: its backward efficiency is divided by how far its forward efficiency
    lies from the device's. Returns them with the fit's error on the site's backward rows.
    """
    ahead, back = table.where(table["direction"] == "fwd"), table.where(table["direction"] == "bwd")
    site_forward = fit_site_attention(ahead, rates, forward).coefficients
    site_backward = fit_site_attention(back, rates, forward)
    level = site_forward.efficiency / forward.efficiency
    c = site_backward.coefficients
    figures = site_backward.held_out
    assert figures is not None
    return replace(c, efficiency=min(1.0, c.efficiency / level)), figures


def _fit(
    table: Table, predict: Callable[[Table, C], Array], base: C, bounds: dict[str, tuple[float, float]]
) -> Fitted[C]:
    if len(table) < LEAST_ROWS:
        raise TooFewError(table, LEAST_ROWS)
    back = held_out(table)
    if not LEAST_ROWS <= np.count_nonzero(~back) < len(table):  # too few groups to hold any back
        back = np.zeros(len(table), dtype=np.bool_)
    training, judged = table.where(~back), table.where(back if back.any() else ~back)
    start = {name: float(getattr(base, name)) for name in bounds}
    solution = solve(lambda v: predict(training, _replaced(base, v)), training.seconds, start, bounds)
    best = _replaced(base, solution.values)
    predicted = predict(judged, best)
    return Fitted(
        coefficients=best,
        random=random_error(predicted, judged.seconds),
        site=OWN_SITE,
        sources=tuple(sorted({str(s) for s in table.source})),
        points=len(table),
        held_out=errors(predicted, judged.seconds),
        confidence=solution.confidence,
        notes=""
        if back.any()
        else "Too few shapes to hold any back: the errors are those of the fitted rows.",
    )


def _replaced(base: C, values: Values) -> C:
    fields: Any = values
    return replace(base, **fields)  # type: ignore[type-var]
