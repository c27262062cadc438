"""Fits the curves between domains, given the curves inside them.

All-reduce: trees (LL, LL128, and Simple: NVLSTree where the switch reduces, plain rings and trees elsewhere).
All-gather and reduce-scatter are one ring run in opposite directions and share their coefficients, as do the
sites measured on one kind of network. All-to-all: pairwise sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log
from typing import Any

import numpy as np

from calibration.fit_network.domain import (
    PRIOR_WEIGHT,
    Array,
    CurveForm,
    Prior,
    solve,
)
from calibration.fit_network.machines import Machine, Unmapped, machine_of, placement_of
from calibration.fit_network.rows import CollectiveRow
from simulator.network.candidates import candidates
from simulator.network.fabric import FabricProfile, NetworkCurve, ScaleOutProfile, scale_up_for
from simulator.network.placement import Group
from simulator.spec.cluster import ClusterSpec

STARTS = 6
ERROR_SCALE = 0.15  # sites differ by this much; errors beyond it weigh linearly
SPARSE_WEIGHT = 3.0
# GB200 racks reduce at S/(400 GB/s) over two racks and 2·S/(400 GB/s) over twenty: eight 400 Gb/s NICs'
# worth, where a rack has 72 (public all-reduce figures of 144 and 1,440 GPUs, coreweave/nccl-tests)
MAX_NICS = 8.0
# sends below this many bytes per pair take another path of the network library on Slingshot, twice as slow
SMALLEST_SEND = 256.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The rows of one machine and group shape, as arrays, with what the formulas need to know of it."""

    collective: str
    cluster: ClusterSpec
    profile: FabricProfile  # its scale-out part is what is fitted
    group: Group
    size: Array
    seconds: Array
    weight: float


def network_forms(collective: str) -> list[CurveForm]:
    """The curves of a collective between domains; priors from NCCL's NET latencies and datasheet rates."""
    if collective == "all_reduce":
        return [
            _low_latency("tree", "LL", efficiency=0.1, hop_s=10e-6),
            _low_latency("tree", "LL128", efficiency=0.4, hop_s=25e-6),
            _bandwidth_bound("nvls-tree", hop_s=20e-6),
            _bandwidth_bound("ring", hop_s=20e-6),
            _bandwidth_bound("tree", hop_s=20e-6),
        ]
    if collective == "all_to_all":
        return [_low_latency("pairwise", "Simple", efficiency=0.8, hop_s=5e-6)]
    return [
        _low_latency("ring", "LL", efficiency=0.05, hop_s=10e-6),
        _low_latency("ring", "LL128", efficiency=0.3, hop_s=15e-6),
        _bandwidth_bound("ring", hop_s=20e-6),
    ]


def _low_latency(algorithm: str, protocol: str, *, efficiency: float, hop_s: float) -> CurveForm:
    return CurveForm(algorithm=algorithm, protocol=protocol, priors={
        "base_s": Prior(centre=8e-6, spread=1.5), "hop_s": Prior(centre=hop_s, spread=2.5),
        "fill_s": Prior(centre=15e-6, spread=3.0), "fill_bytes": Prior(centre=30e3, spread=6.0),
        "efficiency": Prior(centre=efficiency, spread=1.6, highest=1.0)})  # fmt: skip


def _bandwidth_bound(algorithm: str, *, hop_s: float) -> CurveForm:
    return CurveForm(algorithm=algorithm, protocol="Simple", priors={
        "base_s": Prior(centre=20e-6), "hop_s": Prior(centre=hop_s, spread=2.5),
        "ramp_s": Prior(centre=100e-6, spread=4.0), "ramp_bytes": Prior(centre=50e6, spread=3.0, highest=1e9),
        "efficiency": Prior(centre=0.9, spread=1.2, highest=1.0)})  # fmt: skip


def curves_of(rows: Sequence[CollectiveRow], cluster: ClusterSpec | None = None) -> list[Curve]:
    """Rows of several domains grouped by machine and shape; rows without a machine are left out.

    All were measured on ``cluster`` where it is given.
    """
    grouped: dict[tuple[str, str, int, int, str, str], list[CollectiveRow]] = {}
    for row in rows:
        if row.collective == "all_to_all" and row.size_bytes < SMALLEST_SEND * row.ranks:
            continue
        key = (row.collective, row.fabric, row.ranks, row.nodes, row.device, row.algorithm)
        grouped.setdefault(key, []).append(row)
    curves = []
    for members in grouped.values():
        machine = Machine(cluster=cluster) if cluster else machine_of(members[0])
        if isinstance(machine, Unmapped) or not machine.tuned:
            continue
        curves.append(_curve(members, machine))
    return curves


def fit_network_curves(
    collective: str, rows: Sequence[CollectiveRow], cluster: ClusterSpec | None = None, starts: int = STARTS
) -> tuple[NetworkCurve, ...]:
    """The network curves of one collective that fit the rows best (``reduce_scatter`` rows join
    ``all_gather``); all were measured on ``cluster`` where it is given.
    """
    data = curves_of(rows, cluster)
    forms = network_forms(collective)
    fits = [_descend(forms, collective, data, np.random.default_rng(start)) for start in range(starts)]
    best = min(fits, key=lambda fit: fit[0])[1]
    return tuple(_curves(forms, collective, best))


def predict(curves: Sequence[NetworkCurve], data: Curve) -> Array:
    """Seconds of the rows of one shape: the fastest allowed curve."""
    return np.min(_candidates(curves, data), axis=0)  # type: ignore[no-any-return]


def _candidates(curves: Sequence[NetworkCurve], data: Curve) -> Array:
    impossible = np.full_like(data.size, inf)
    times = []
    for curve in curves:
        named = replace(curve, collective=data.collective)
        profile = replace(data.profile, scale_out=replace(data.profile.scale_out, curves=(named,)))
        found = list(candidates(data.collective, data.size, data.group, data.cluster, profile))  # type: ignore[arg-type]
        times.append(found[0][0] if found else impossible)
    return np.array(times)


def _curve(rows: Sequence[CollectiveRow], machine: Machine) -> Curve:
    placement = placement_of(machine.cluster, rows[0].ranks, rows[0].nodes)
    empty = ScaleOutProfile(name=machine.cluster.fabric, curves=())
    return Curve(
        collective=rows[0].collective,
        cluster=machine.cluster,
        profile=FabricProfile(scale_up=scale_up_for(machine.cluster), scale_out=empty),
        group=placement.group("dp"),
        size=np.array([r.size_bytes for r in rows], dtype=float),
        seconds=np.array([r.seconds for r in rows], dtype=float),
        weight=SPARSE_WEIGHT if len(rows) < 8 else 1.0,
    )


def _curves(forms: Sequence[CurveForm], collective: str, x: Array) -> list[NetworkCurve]:
    values = iter(np.exp(x))
    return [
        NetworkCurve(
            collective=collective,
            algorithm=form.algorithm,
            protocol=form.protocol,
            max_nics=inf if form.algorithm == "pairwise" else MAX_NICS,
            **{name: float(next(values)) for name in form.priors},
        )
        for form in forms
    ]


def _descend(
    forms: Sequence[CurveForm], collective: str, data: Sequence[Curve], rng: np.random.Generator
) -> tuple[float, Array]:
    priors = [prior for form in forms for prior in form.priors.values()]
    centre = np.array([log(p.centre) for p in priors])
    spread = np.array([log(p.spread) for p in priors])
    lowest = centre - 4 * spread
    highest = np.minimum(centre + 4 * spread, [log(p.highest) if p.highest < inf else inf for p in priors])
    start = np.clip(centre + 0.4 * spread * rng.standard_normal(len(priors)), lowest + 1e-3, highest - 1e-3)

    def residuals(x: Array) -> Array:
        curves = _curves(forms, collective, x)
        parts: list[Any] = [
            np.sqrt(shape.weight) * (np.log(predict(curves, shape)) - np.log(shape.seconds)) for shape in data
        ]
        return np.concatenate([*parts, 5 * PRIOR_WEIGHT * (x - centre) / spread])

    return solve(residuals, start, (lowest, highest), ERROR_SCALE)
