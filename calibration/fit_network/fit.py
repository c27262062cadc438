"""From tables of measured collectives to fabric profiles, with errors on rows the fit has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import Any

import numpy as np

from calibration.fit_network import domain, network
from calibration.fit_network.machines import Machine, machine_of
from calibration.fit_network.rows import CollectiveRow
from simulator.network.fabric import DomainCurve, NetworkCurve, ScaleOutProfile, ScaleUpProfile
from simulator.spec.cluster import ClusterSpec

FITTED = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
SMALLEST = 256.0  # bytes; below it times are those of the launch
FOLDS = 5
UNREDUCED = frozenset({"int8", "uint8"})
LARGE = 65536.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Relative errors on rows that the fit which predicted them had not seen."""

    rows: int
    median: float
    p90: float
    bias: float


def held_out(errors: Iterable[float]) -> HeldOut:
    """Summary of signed relative errors."""
    e = np.array(list(errors))
    if not e.size:
        return HeldOut(rows=0, median=0.0, p90=0.0, bias=0.0)
    return HeldOut(
        rows=e.size,
        median=float(np.median(np.abs(e))),
        p90=float(np.quantile(np.abs(e), 0.9)),
        bias=float(np.median(e)),
    )


def domain_rows(rows: Iterable[CollectiveRow], devices: Sequence[str]) -> list[CollectiveRow]:
    """Rows measured inside one scale-up domain of the given devices, of the types that training reduces."""
    kept = []
    for row in rows:
        if row.device not in devices or row.size_bytes < SMALLEST:
            continue
        if row.dtype in UNREDUCED and row.collective in ("all_reduce", "reduce_scatter"):
            continue  # byte-wise sums are bound by arithmetic
        machine = machine_of(row)
        if isinstance(machine, Machine) and row.ranks <= machine.cluster.scale_up.domain_size:
            kept.append(row)
    return kept


def fit_scale_up(
    rows: Sequence[CollectiveRow],
    *,
    name: str,
    link_bandwidth: float,
    multicast: bool,
    collective_sms: int,
    base: ScaleUpProfile | None = None,
    starts: int = domain.STARTS,
) -> tuple[ScaleUpProfile, dict[str, HeldOut]]:
    """A scale-up profile, and its errors on held-out sizes and rank counts of messages of 64 KB and more.

    ``base`` lends the curves of collectives without rows; every fit is the best of ``starts`` attempts.
    """
    curves: list[DomainCurve] = []
    sizes: list[float] = []
    counts: list[float] = []
    small: list[float] = []
    for collective in FITTED:
        own = [r for r in rows if r.collective == collective]
        if base and not own:
            curves.extend(base.of(collective))
            continue

        def fitted(training: Sequence[CollectiveRow]) -> tuple[DomainCurve, ...]:
            return domain.fit_curves(training, link_bandwidth, multicast=multicast, starts=starts)

        curves.extend(fitted(own))
        large, little = _by_size(own, fitted)
        sizes.extend(large)
        small.extend(little)
        counts.extend(_by_ranks(own, fitted))
    sends = [r for r in rows if r.collective == "send_recv"]
    lent = base.of("send_recv") if base else _sends(curves)
    own_sends = domain.fit_curves(sends, link_bandwidth, multicast=False) if sends else lent
    errors = {
        "sizes, 64 KB and more": held_out(sizes),
        "sizes, below 64 KB": held_out(small),
        "rank count 4": held_out(counts),
    }
    profile = ScaleUpProfile(
        name=name,
        link_bandwidth=link_bandwidth,
        collective_sms=collective_sms,
        curves=(*curves, *own_sends),
        random=_deviation(sizes),
    )
    return profile, errors


def fit_scale_out(
    rows: Sequence[CollectiveRow],
    *,
    name: str,
    cluster: ClusterSpec | None = None,
    starts: int = network.STARTS,
) -> tuple[ScaleOutProfile, dict[str, HeldOut]]:
    """A scale-out profile from the rows of one kind of network, and its errors on held-out sizes.

    All were measured on ``cluster`` where it is given, else on the machines that their texts name.
    """
    curves: list[NetworkCurve] = []
    errors: dict[str, HeldOut] = {}
    everything: list[float] = []
    for collective in ("all_reduce", "all_gather", "all_to_all"):
        joined = (collective, "reduce_scatter") if collective == "all_gather" else (collective,)
        own = [r for r in rows if r.collective in joined]
        if not own:
            continue
        curves.extend(network.fit_network_curves(collective, own, cluster, starts))
        found = _network_errors(collective, own, cluster, starts)
        errors[collective] = held_out(found)
        everything.extend(found)
    reduce_scatter = [replace(c, collective="reduce_scatter") for c in curves if c.collective == "all_gather"]
    return (
        ScaleOutProfile(name=name, curves=(*curves, *reduce_scatter), random=_deviation(everything)),
        errors,
    )


def _fold(row: CollectiveRow) -> int:
    """Neighbouring sizes fall into different folds, all rows of one size into the same."""
    return round(log2(max(row.size_bytes, 1.0))) % FOLDS


def _by_size(
    rows: Sequence[CollectiveRow], fit: Callable[[Sequence[CollectiveRow]], tuple[DomainCurve, ...]]
) -> tuple[list[float], list[float]]:
    large: list[float] = []
    small: list[float] = []
    for fold in range(FOLDS):
        test = [r for r in rows if _fold(r) == fold]
        curves = fit([r for r in rows if _fold(r) != fold])
        for row, error in zip(test, _errors(curves, test), strict=True):
            (large if row.size_bytes >= LARGE else small).append(error)
    return large, small


def _by_ranks(
    rows: Sequence[CollectiveRow], fit: Callable[[Sequence[CollectiveRow]], tuple[DomainCurve, ...]]
) -> list[float]:
    """Errors on four ranks of curves fitted on the other counts."""
    test = [r for r in rows if r.ranks == 4 and r.size_bytes >= LARGE]
    training = [r for r in rows if r.ranks != 4]
    if not test or len({r.ranks for r in training}) < 2:
        return []
    return _errors(fit(training), test)


def _errors(curves: Sequence[DomainCurve], rows: Sequence[CollectiveRow]) -> list[float]:
    if not rows:
        return []
    table = domain.table_of(rows)
    found: list[float] = (domain.predict(curves, table) / table.seconds - 1.0).tolist()
    return found


def _network_errors(
    collective: str, rows: Sequence[CollectiveRow], cluster: ClusterSpec | None, starts: int
) -> list[float]:
    errors: list[float] = []
    for fold in range(FOLDS):
        test = [r for r in rows if _fold(r) == fold]
        training = [r for r in rows if _fold(r) != fold]
        if not test or not training:
            continue
        curves = network.fit_network_curves(collective, training, cluster, starts)
        for shape in network.curves_of(test, cluster):
            errors.extend((network.predict(curves, shape) / shape.seconds - 1.0).tolist())
    return errors


def _deviation(errors: Sequence[float]) -> float:
    """A standard error that outliers do not set: the median absolute error over that of a unit normal."""
    return float(np.median(np.abs(errors)) / 0.6745) if errors else 0.0


def _sends(curves: Sequence[DomainCurve]) -> list[DomainCurve]:
    """A send-receive pair is an all-to-all of two ranks without the own share's copy."""
    fields: dict[str, Any] = {"collective": "send_recv", "algorithm": "p2p", "copy_bandwidth": float("inf")}
    return [replace(c, **fields) for c in curves if c.collective == "all_to_all"]
