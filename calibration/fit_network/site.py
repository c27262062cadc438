"""A cluster's own fabric profile, from collectives measured on it, over the profiles that ship."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from calibration.fit_network.fit import SMALLEST, HeldOut, fit_scale_out, fit_scale_up
from calibration.fit_network.profiles import errors_mapping, profile_mapping
from calibration.fit_network.rows import CollectiveRow
from simulator.network.fabric import FORMAT_VERSION, DomainCurve, NetworkCurve, fabric_for
from simulator.spec.cluster import ClusterSpec

FEWEST = 8  # rows of a collective: two sizes of each protocol and some to hold out
STARTS = 1  # of a fit: rows of one cluster agree with each other
OWN_SITE = 0.02  # between days on one cluster; the shipped profiles' larger error is between clusters


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFabrics:
    """``document`` is the site file's YAML mapping, empty where nothing was fitted.

    ``errors`` are those on rows held out, by part; ``refused`` says which collectives lack rows.
    """

    document: dict[str, Any]
    errors: dict[str, HeldOut]
    refused: tuple[str, ...]


def fit_site_fabrics(name: str, cluster: ClusterSpec, rows: Sequence[CollectiveRow]) -> SiteFabrics:
    """Fit the curves inside a domain and between domains that the rows cover; the others stay as shipped."""
    refused: list[str] = []
    usable = [row for row in rows if row.ranks > 1 and row.size_bytes >= SMALLEST]
    inside = _enough([row for row in usable if _inside(row, cluster)], "inside a domain", refused)
    across = _enough([row for row in usable if not _inside(row, cluster)], "between domains", refused)
    document: dict[str, Any] = {}
    errors: dict[str, HeldOut] = {}
    if inside:
        document["scale_up"], found = _scale_up(name, cluster, inside)
        errors |= {f"inside a domain, {what}": error for what, error in found.items() if error.rows}
    if across:
        document["scale_out"], found = _scale_out(name, cluster, across)
        errors |= {f"between domains, {what}": error for what, error in found.items() if error.rows}
    if document:
        document = {"format_version": FORMAT_VERSION, **document}
    return SiteFabrics(document=document, errors=errors, refused=tuple(refused))


def _inside(row: CollectiveRow, cluster: ClusterSpec) -> bool:
    """Whether a group fits into a domain, be it a node or a rack of several."""
    nodes_per_domain = max(1, cluster.scale_up.domain_size // cluster.gpus_per_node)
    return row.nodes <= nodes_per_domain and row.ranks <= cluster.scale_up.domain_size


def _enough(rows: Sequence[CollectiveRow], where: str, refused: list[str]) -> list[CollectiveRow]:
    counts = Counter(row.collective for row in rows)
    for collective, count in sorted(counts.items()):
        if count < FEWEST:
            refused.append(f"{collective} {where}: {count} rows, at least {FEWEST} are needed")
    return [row for row in rows if counts[row.collective] >= FEWEST]


def _scale_up(
    name: str, cluster: ClusterSpec, rows: Sequence[CollectiveRow]
) -> tuple[dict[str, Any], dict[str, HeldOut]]:
    base = fabric_for(cluster).scale_up
    link, sms = cluster.scale_up.link.bandwidth, base.collective_sms
    fitted, errors = fit_scale_up(
        rows,
        name=name,
        link_bandwidth=link,
        multicast=cluster.scale_up.multicast,
        collective_sms=sms,
        base=base,
        starts=STARTS,
    )
    head = {"name": name, "link_bandwidth": link, "collective_sms": sms}
    return head | _fitted(fitted.random, fitted.curves, rows, errors), errors


def _scale_out(
    name: str, cluster: ClusterSpec, rows: Sequence[CollectiveRow]
) -> tuple[dict[str, Any], dict[str, HeldOut]]:
    base = fabric_for(cluster).scale_out
    fitted, errors = fit_scale_out(rows, name=name, cluster=cluster, starts=STARTS)
    measured = {curve.collective for curve in fitted.curves}
    lent = tuple(curve for curve in base.curves if curve.collective not in measured)
    return {"name": name} | _fitted(fitted.random, (*fitted.curves, *lent), rows, errors), errors


def _fitted(
    random: float,
    curves: Sequence[DomainCurve] | Sequence[NetworkCurve],
    rows: Sequence[CollectiveRow],
    errors: dict[str, HeldOut],
) -> dict[str, Any]:
    provenance = {
        "fitted": datetime.date.today().isoformat(),
        "sources": sorted({row.source or row.file for row in rows}),
        "rows": len(rows),
        "held_out": errors_mapping(errors),
    }
    curves_by_collective = profile_mapping(curves)
    return {
        "random": round(random, 3),
        "site": OWN_SITE,
        "provenance": provenance,
        "curves": curves_by_collective,
    }
