"""Quantities as people write them ("400 Gb/s", "80 GiB", "989 TFLOP/s", "3 µs") to SI floats.

One number and one unit, the usual form, is read by a small table; any other form ("1.5 hours",
"2 * 200 Gb/s", "6 GB/minute") by pint with the definitions of ``units.txt``, imported only then (0.15 s).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Dimension:
    """What a number counts: its SI unit in ``units.txt``'s terms, and an example to show."""

    name: str
    unit: str
    symbol: str
    example: str


DIMENSIONS: Final = {
    dimension.name: dimension
    for dimension in (
        Dimension("bytes", "byte", "B", "80 GiB or 80 GB"),
        Dimension("bytes/s", "byte/second", "B/s", "400 Gb/s or 50 GB/s"),
        Dimension("FLOP/s", "FLOP/second", "FLOP/s", "989 TFLOP/s"),
        Dimension("seconds", "second", "s", "3 us"),
        Dimension("hertz", "hertz", "Hz", "1.83 GHz"),
        Dimension("watts", "watt", "W", "700 W"),
        Dimension("ratio", "dimensionless", "", "0.5 or 50 %"),
    )
}

_PREFIXES = {
    "": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
    "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12,
}  # fmt: skip
_UNITS = {
    "B": ("bytes", 1.0), "b": ("bytes", 0.125), "s": ("seconds", 1.0),
    "Hz": ("hertz", 1.0), "W": ("watts", 1.0),
    "B/s": ("bytes/s", 1.0), "Bps": ("bytes/s", 1.0), "b/s": ("bytes/s", 0.125), "bps": ("bytes/s", 0.125),
    "FLOP/s": ("FLOP/s", 1.0), "FLOPS": ("FLOP/s", 1.0), "flops": ("FLOP/s", 1.0), "%": ("ratio", 0.01),
}  # fmt: skip
_NUMBER = r"[-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_USUAL = re.compile(
    rf"({_NUMBER})\s*({'|'.join(sorted(filter(None, _PREFIXES), key=len, reverse=True))})?"
    rf"({'|'.join(sorted(map(re.escape, _UNITS), key=len, reverse=True))})?\Z"
)
_FRACTION_OF_A_BIT = re.compile(r"(?<![A-Za-z])([munpµμ])(?:[bB]|bits?|bytes?|[bB]ps)(?![A-Za-z])")
_EXPRESSION = re.compile(r"[\w\s.+\-*/()%]{1,80}\Z")


class UnitError(ValueError):
    """A text that is not a quantity of the dimension asked for, with the rule and the remedy."""

    def __init__(self, rule: str, hint: str) -> None:
        super().__init__(rule)
        self.rule = rule
        self.hint = hint


def parse_quantity(value: object, dimension: str) -> float:
    """The SI value of a number (already SI) or of a text with a unit.

    ``dimension`` is a key of :data:`DIMENSIONS`. Raises UnitError for anything else, a wrong one included.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(float(value), dimension)
    if not isinstance(value, str):
        raise _refusal(dimension, "is not a quantity")
    text = value.strip()
    if small := _FRACTION_OF_A_BIT.search(text):
        raise UnitError(
            f"{small[0]!r} would be a fraction of a bit",
            f"{small[0].replace('m', 'M', 1)}: M is mega, m is milli",
        )
    usual = _USUAL.match(text)
    if usual is None:
        return _finite(_by_pint(text, dimension), dimension)
    number, prefix, unit = usual.groups(default="")
    if not unit:
        if prefix:
            raise _refusal(dimension, f"has no unit after the prefix {prefix!r}")
        return _finite(float(number), dimension)
    found, factor = _UNITS[unit]
    if found != dimension:
        raise _refusal(dimension, f"is in {found}")
    return _finite(float(number) * (_PREFIXES[prefix] * factor), dimension)


def _finite(number: float, dimension: str) -> float:
    if not math.isfinite(number):
        raise _refusal(dimension, "is not a finite number")
    return number


def _refusal(dimension: str, found: str) -> UnitError:
    wanted = DIMENSIONS[dimension]
    return UnitError(
        f"{found}; {wanted.name} are expected", f"a number in {wanted.symbol or '0…1'}, or {wanted.example}"
    )


def _by_pint(text: str, dimension: str) -> float:
    """The general case. No power operator is let through: it could be made to compute for ever."""
    if not _EXPRESSION.match(text) or "**" in text:
        raise _refusal(dimension, "is not a quantity")
    import pint  # noqa: PLC0415  (0.15 s, and rarely needed)

    try:
        quantity = _registry().parse_expression(text)
    except pint.UndefinedUnitError as error:
        names = (
            ", ".join(map(str, error.unit_names))
            if not isinstance(error.unit_names, str)
            else error.unit_names
        )
        raise _refusal(dimension, f"has an unknown unit {names!r}") from None
    except Exception:  # pint passes on whatever its tokenizer meets
        raise _refusal(dimension, "is not a quantity") from None
    if isinstance(quantity, int | float):
        return float(quantity)
    try:
        return float(quantity.m_as(DIMENSIONS[dimension].unit))
    except pint.DimensionalityError as error:
        found = "is not a quantity" if quantity.dimensionless else f"is in {error.units1}"
        raise _refusal(dimension, found) from None


@cache
def _registry() -> Any:
    import pint  # noqa: PLC0415

    definitions = resources.files("simulator.spec").joinpath("units.txt").read_text(encoding="utf-8")
    return pint.UnitRegistry(definitions.splitlines(), autoconvert_offset_to_baseunit=False)
