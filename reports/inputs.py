"""A run file as it was understood, defaults filled in, in units that people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from reports.quantities import GIB, scaled, seconds
from simulator.spec.run import RunSpec

PARTS = ("parallelism", "training", "runtime", "model", "cluster", "simulation")
WORDY = frozenset({"sources", "source", "notes", "description", "title"})  # not settings


def inputs(run: RunSpec) -> dict[str, list[tuple[str, str]]]:
    """Every setting by the part of the run file it stands in: its key and its value."""
    return {part: list(_rows("", getattr(run, part))) for part in PARTS}


def _rows(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in WORDY:
                yield from _rows(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list | tuple) and any(is_dataclass(item) for item in value):
        for index, item in enumerate(value):
            yield from _rows(f"{path}[{index}]", item)
    else:
        yield path, readable(path, value)


def readable(key: str, value: Any) -> str:
    """A value in words; the key tells the unit of a number."""
    if value is None or value == "":
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {readable(name, item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(readable(key, item) for item in value) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _number(key, value) if isinstance(value, int | float) else str(value)


def _number(key: str, value: float) -> str:
    if key.endswith("_s"):
        return seconds(value)
    if key.endswith("bytes"):
        return f"{value / GIB:,.4g} GiB"
    for name, unit in (("bandwidth", "B/s"), ("peak_flops", "FLOP/s"), ("hz", "Hz")):
        if name in key:
            return f"{_prefixed(value)}{unit}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _prefixed(value: float) -> str:
    text = scaled(value)
    return text if text[-1].isalpha() else f"{text} "
