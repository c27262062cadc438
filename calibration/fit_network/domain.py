"""Fits the curves of a scale-up domain.

Robust least squares on log time, with NCCL's own constants as priors. Each collective gets the protocols NCCL
has (LL, LL128, Simple) and, where the switch reduces, NVLS. The fastest protocol is predicted, except that
LL128 ends at a size per rank which is searched: NCCL leaves it there for Simple, also where that is slower.
The formulas are the simulator's own; only their coefficients are fitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from calibration.fit_network.rows import CollectiveRow
from simulator.network import alltoall, nvls, ring
from simulator.network.fabric import DomainCurve

Array = np.ndarray[Any, np.dtype[np.float64]]
NO_SWITCH_REDUCTION = frozenset({"int8", "uint8"})  # types NVLink SHARP does not add
STARTS = 5
PRIOR_WEIGHT = 0.01  # of a prior's standard deviation, on the scale of a relative error
ERROR_SCALE = 0.04  # relative errors beyond this weigh linearly (soft L1)
LIMITS = (inf, *(2.0 ** (k / 2) for k in range(35, 46)))  # bytes per rank: 181 KB … 5.9 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """A coefficient's centre and spread, both multiplicative, and what it may be at most."""

    centre: float
    spread: float = 2.0
    highest: float = inf


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveForm:
    """The coefficients of one curve that are fitted."""

    algorithm: str
    protocol: str
    priors: dict[str, Prior]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Measurements of one collective as arrays: bytes, ranks, seconds, and whether NVLS may serve them."""

    collective: str
    size: Array
    ranks: Array
    seconds: Array
    reducible: np.ndarray[Any, np.dtype[np.bool_]]
    weight: Array  # of a squared residual


def table_of(rows: Sequence[CollectiveRow]) -> Table:
    """Rows of one collective as arrays."""
    return Table(
        collective=rows[0].collective,
        size=np.array([r.size_bytes for r in rows], dtype=float),
        ranks=np.array([r.ranks for r in rows], dtype=float),
        seconds=np.array([r.seconds for r in rows], dtype=float),
        reducible=np.array([r.dtype not in NO_SWITCH_REDUCTION for r in rows]),
        weight=_weights(rows),
    )


def _weights(rows: Sequence[CollectiveRow]) -> Array:
    """Rank counts with few rows count for more, up to four times, so that the dense ones do not decide."""
    counts = Counter(r.ranks for r in rows)
    mean = len(rows) / len(counts)
    return np.array([min(4.0, max(1.0, mean / counts[r.ranks])) for r in rows])


def curve_forms(collective: str, link_bandwidth: float, *, multicast: bool) -> list[CurveForm]:
    """The curves of a collective; their priors come from the latencies of NCCL's ``tuning.cc``."""
    if collective == "send_recv":
        return _send_forms(link_bandwidth)
    algorithm = "pairwise" if collective == "all_to_all" else "ring"
    link = link_bandwidth

    def form(protocol: str, algorithm: str = algorithm, **priors: Prior) -> CurveForm:
        return CurveForm(algorithm=algorithm, protocol=protocol, priors=priors)

    forms = [
        form(
            "LL",
            base_s=Prior(centre=6.6e-6),
            hop_s=Prior(centre=0.8e-6),
            bandwidth=Prior(centre=0.03 * link, highest=link),
        ),
        form(
            "LL128",
            base_s=Prior(centre=8e-6),
            hop_s=Prior(centre=1.2e-6),
            bandwidth=Prior(centre=0.35 * link, highest=link),
        ),
        form(
            "Simple",
            base_s=Prior(centre=20e-6, spread=3.0),
            hop_s=Prior(centre=1e-6, spread=3.0),
            bandwidth=Prior(centre=0.85 * link, highest=link),
            copy_bandwidth=Prior(centre=2.2 * link),
            ramp_s=Prior(centre=20e-6, spread=3.0),
            ramp_bytes=Prior(centre=10e6, spread=10.0, highest=1e9),
        ),
    ]
    if collective == "all_reduce" and multicast:
        forms.append(
            form(
                "Simple",
                algorithm="nvls",
                base_s=Prior(centre=25e-6),
                hop_s=Prior(centre=1e-6, spread=3.0),
                bandwidth=Prior(centre=0.6 * link, highest=link),
                ramp_s=Prior(centre=40e-6, spread=3.0),
                ramp_bytes=Prior(centre=5e6, spread=10.0, highest=1e9),
            )
        )
    return forms


def _send_forms(link: float) -> list[CurveForm]:
    """A message uses the few channels NCCL keeps per peer, and all of them when it is very large."""
    few = {"base_s": Prior(centre=12e-6), "bandwidth": Prior(centre=0.2 * link, spread=3.0, highest=link)}
    many = {"base_s": Prior(centre=300e-6), "bandwidth": Prior(centre=0.8 * link, highest=link)}
    return [
        CurveForm(algorithm="p2p", protocol="Simple", priors=few),
        CurveForm(algorithm="p2p", protocol="Simple", priors=many),
    ]


def predict(curves: Sequence[DomainCurve], table: Table) -> Array:
    """Seconds of every row: the fastest allowed curve."""
    return np.min([_times(curve, table) for curve in curves], axis=0)  # type: ignore[no-any-return]


def fit_curves(
    rows: Sequence[CollectiveRow], link_bandwidth: float, *, multicast: bool, starts: int = STARTS
) -> tuple[DomainCurve, ...]:
    """The curves of one collective that fit the rows best."""
    table = table_of(rows)
    forms = curve_forms(table.collective, link_bandwidth, multicast=multicast)
    best: tuple[float, Array, float] | None = None
    for limit in LIMITS:
        for start in range(starts):
            cost, x = _descend(forms, table, limit, np.random.default_rng(start))
            if best is None or cost < best[0]:
                best = (cost, x, limit)
    assert best is not None
    return _used(_curves(forms, table.collective, best[1], best[2]), table)


def _used(curves: list[DomainCurve], table: Table) -> tuple[DomainCurve, ...]:
    """Curves that are the fastest for some row; the others were not determined by the data."""
    fastest = np.argmin([_times(curve, table) for curve in curves], axis=0)
    return tuple(curve for index, curve in enumerate(curves) if (fastest == index).any())


def _times(curve: DomainCurve, table: Table) -> Array:
    # the simulator's formulas are plain arithmetic: they take arrays where a single transfer passes numbers
    size, ranks = table.size, table.ranks
    if curve.algorithm == "nvls":
        seconds: Any = nvls.inside(size, ranks, curve)  # type: ignore[arg-type]
        seconds = np.where((ranks > 2) & table.reducible, seconds, inf)
    elif curve.algorithm == "p2p":
        seconds = curve.seconds(hops=1, wire_bytes=size, own_bytes=0.0)  # type: ignore[arg-type]
    elif curve.algorithm == "pairwise":
        seconds = alltoall.inside(size, ranks, curve)  # type: ignore[arg-type]
    else:
        seconds = ring.inside(table.collective, size, ranks, curve)  # type: ignore[arg-type]
    return np.where(size > curve.limit_bytes * ranks, inf, seconds)


def _curves(forms: Sequence[CurveForm], collective: str, x: Array, limit: float) -> list[DomainCurve]:
    values = iter(np.exp(x))
    curves = []
    for form in forms:
        fitted = {name: float(next(values)) for name in form.priors}
        ends = limit if form.protocol == "LL128" else inf
        curves.append(
            DomainCurve(
                collective=collective,
                algorithm=form.algorithm,
                protocol=form.protocol,
                limit_bytes=ends,
                **fitted,
            )
        )
    return curves


def _descend(
    forms: Sequence[CurveForm], table: Table, limit: float, rng: np.random.Generator
) -> tuple[float, Array]:
    """One local optimum of the coefficients' logarithms, from a random start around the priors."""
    priors = [prior for form in forms for prior in form.priors.values()]
    centre = np.array([log(p.centre) for p in priors])
    spread = np.array([log(p.spread) for p in priors])
    lowest = centre - 4 * spread
    highest = np.minimum(centre + 4 * spread, [log(p.highest) if p.highest < inf else inf for p in priors])
    start = np.clip(centre + 0.5 * spread * rng.standard_normal(len(priors)), lowest + 1e-3, highest - 1e-3)
    measured = np.log(table.seconds)
    root_weight = np.sqrt(table.weight)

    def residuals(x: Array) -> Array:
        predicted = predict(_curves(forms, table.collective, x, limit), table)
        prior = PRIOR_WEIGHT * (x - centre) / spread
        return np.concatenate([root_weight * (np.log(predicted) - measured), prior])

    return solve(residuals, start, (lowest, highest), ERROR_SCALE)


def solve(
    residuals: Callable[[Array], Array], start: Array, bounds: tuple[Array, Array], error_scale: float
) -> tuple[float, Array]:
    """Cost and place of a local optimum under a soft-L1 loss."""
    found = least_squares(residuals, start, bounds=bounds, loss="soft_l1", f_scale=error_scale, max_nfev=150)
    return float(found.cost), found.x
