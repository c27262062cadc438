"""Robust least squares over named coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Values = dict[str, float]

_SOFT = 0.1  # log error beyond which a measurement's pull stops growing (soft-L1)
_INTERVAL = 1.645  # standard errors of a 90 % interval
MOST_ROWS = 6000  # more do not move the coefficients, only the time a fit takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Coefficients and the 90 % interval of each."""

    values: Values
    confidence: dict[str, tuple[float, float]]


def solve(
    predict: Callable[[Values], Array],
    measured: Array,
    start: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    *,
    soft: float = _SOFT,
) -> Solution:
    """The coefficients whose predictions are nearest in log time, soft-L1 loss (scipy's trust-region
    reflective).

    ``start`` and ``bounds`` have the same names.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415  (heavy, and only fits need it)

    names = list(bounds)
    low, high = np.array([bounds[name] for name in names], dtype=np.float64).T
    scale = np.array([abs(start[name]) or high[i] / 10 for i, name in enumerate(names)])
    target = np.log(measured)

    def at(x: Array) -> Values:
        return dict(zip(names, map(float, np.clip(x * scale, low, high)), strict=True))

    def residuals(x: Array) -> Array:
        return np.asarray(np.log(predict(at(x))) - target)

    first = np.clip(np.array([start[name] for name in names]), low, high) / scale
    box = (low / scale - 1e-9, high / scale + 1e-9)
    found = least_squares(residuals, first, bounds=box, loss="soft_l1", f_scale=soft, x_scale="jac")
    half = _INTERVAL * _standard_errors(np.asarray(found.jac), residuals(found.x)) * scale
    best = at(found.x)
    confidence = {
        name: (float(max(low[i], best[name] - half[i])), float(min(high[i], best[name] + half[i])))
        for i, name in enumerate(names)
    }
    return Solution(values=best, confidence=confidence)


def _standard_errors(jacobian: Array, residuals: Array) -> Array:
    """From the curvature at the solution, with a robust scale of the residuals; infinite where there is
    none."""
    spread = float(np.quantile(np.abs(residuals), 0.683))
    hessian = jacobian.T @ jacobian
    covariance = np.linalg.pinv(hessian) * spread**2
    flat = np.diag(hessian) <= 1e-12 * max(float(np.max(np.diag(hessian))), 1e-300)
    return np.where(flat, np.inf, np.sqrt(np.maximum(np.diag(covariance), 0.0)))


def thinned(rows: int, most: int = MOST_ROWS) -> npt.NDArray[np.bool_]:
    """A mask that keeps at most ``most`` of so many rows, always the same ones."""
    keep = np.ones(rows, dtype=np.bool_)
    if rows > most:
        chosen = np.random.default_rng(0).permutation(rows)[:most]
        keep = np.zeros(rows, dtype=np.bool_)
        keep[chosen] = True
    return keep
