"""Writing fabric profiles: rounded coefficients, held-out errors, and where the rows came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from math import inf
from pathlib import Path
from typing import Any

import yaml

from calibration.fit_network.fit import HeldOut
from simulator.network.fabric import FORMAT_VERSION, DomainCurve, NetworkCurve

DIGITS = 4


def write_profile(
    path: Path,
    *,
    head: Mapping[str, Any],
    curves: Iterable[DomainCurve] | Iterable[NetworkCurve],
    provenance: Mapping[str, Any],
) -> None:
    """A profile in the form :mod:`simulator.network.fabric` reads.

    ``head`` holds its plain fields, name first.
    """
    document = {
        "format_version": FORMAT_VERSION,
        **head,
        "provenance": dict(provenance),
        "curves": profile_mapping(curves),
    }
    path.write_text(dump(document), encoding="utf-8")


def dump(document: Mapping[str, Any]) -> str:
    """A profile's YAML."""
    return yaml.safe_dump(dict(document), sort_keys=False, width=110, allow_unicode=True)


def profile_mapping(
    curves: Iterable[DomainCurve] | Iterable[NetworkCurve],
) -> dict[str, list[dict[str, Any]]]:
    """Curves by collective, as a profile's YAML has them."""
    by_collective: dict[str, list[dict[str, Any]]] = {}
    for curve in curves:
        by_collective.setdefault(curve.collective, []).append(_plain(curve))
    return by_collective


def errors_mapping(errors: Mapping[str, HeldOut]) -> dict[str, dict[str, float]]:
    """Errors on held-out rows, rounded, where there were any."""
    return {
        name: {key: round(value, 3) for key, value in asdict(found).items()}
        for name, found in errors.items()
        if found.rows
    }


def _plain(curve: DomainCurve | NetworkCurve) -> dict[str, Any]:
    """The coefficients that differ from their defaults, rounded."""
    plain: dict[str, Any] = {}
    for f in fields(curve):
        value = getattr(curve, f.name)
        if f.name == "collective" or value in (f.default, inf):
            continue
        plain[f.name] = float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
    return plain
