"""Writing fabric profiles: rounded coefficients, held-out errors, and where the rows came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from math import inf
from pathlib import Path
from typing import Any

import yaml

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
    by_collective: dict[str, list[dict[str, Any]]] = {}
    for curve in curves:
        by_collective.setdefault(curve.collective, []).append(_plain(curve))
    document = {
        "format_version": FORMAT_VERSION,
        **head,
        "provenance": dict(provenance),
        "curves": by_collective,
    }
    text = yaml.safe_dump(document, sort_keys=False, width=110, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def _plain(curve: DomainCurve | NetworkCurve) -> dict[str, Any]:
    """The coefficients that differ from their defaults, rounded."""
    plain: dict[str, Any] = {}
    for f in fields(curve):
        value = getattr(curve, f.name)
        if f.name == "collective" or value in (f.default, inf):
            continue
        plain[f.name] = float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
    return plain
