"""The types of the fields of a run file: what each accepts, declared beside the field.

Every validator refuses through :func:`refused`, so that a message always has a rule and, where one can be
named, the nearest valid choice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn, TypeAlias

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from simulator.spec.errors import listed, nearest
from simulator.spec.units import DIMENSIONS, UnitError, parse_quantity

REFUSED: Final = "refused"  # the pydantic error type that carries our rule and suggestion
SMALLEST, LARGEST = 1e-30, 1e30  # beyond: no quantity of this world, and quotients that overflow


def of_this_world(number: float) -> None:
    """Refuses what no machine has: quotients of such numbers overflow."""
    if number and not SMALLEST <= abs(number) <= LARGEST:
        refused(f"must be zero or between {SMALLEST:g} and {LARGEST:g} in SI units")


def refused(rule: str, suggestion: str = "") -> NoReturn:
    """End a validation with a rule in words and the nearest valid choice."""
    raise PydanticCustomError(REFUSED, "{rule}", {"rule": rule, "suggestion": suggestion})


@dataclass(frozen=True)
class Accepts(ABC):
    """What a field accepts; put into ``Annotated`` it is the field's only validator."""

    @abstractmethod
    def check(self, value: Any) -> Any:
        """The value to store; raises through :func:`refused`."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What may be written, for the table of keys."""

    @property
    def unit(self) -> str:
        """The SI unit of the stored value."""
        return ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


@dataclass(frozen=True)
class Quantity(Accepts):
    """A number in SI or a text with a unit of ``dimension``, a key of :data:`DIMENSIONS`; never negative.

    ``null`` where it is ``optional``.
    """

    dimension: str
    positive: bool = False
    optional: bool = False

    def check(self, value: Any) -> float | None:
        if value is None and self.optional:
            return None
        try:
            number = parse_quantity(value, self.dimension)
        except UnitError as error:
            refused(error.rule, error.hint)
        if number < 0 or (self.positive and number == 0):
            refused("must be more than zero" if self.positive else "must not be negative")
        of_this_world(number)
        if self.dimension == "ratio" and number > 1:
            refused("must be between 0 and 1 (100 %)", f"{number:g} %" if number <= 100 else "")
        return number

    @property
    def meaning(self) -> str:
        return f"a quantity: {DIMENSIONS[self.dimension].example}"

    @property
    def unit(self) -> str:
        return DIMENSIONS[self.dimension].symbol


@dataclass(frozen=True)
class Number(Accepts):
    """A finite number without a unit, at least ``least``."""

    least: float = 0.0

    def check(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            refused("must be a number without a unit", _unquoted(value))
        if value < self.least:
            refused(f"must be at least {self.least:g}")
        of_this_world(value)
        return float(value)

    @property
    def meaning(self) -> str:
        return f"a number, at least {self.least:g}"


@dataclass(frozen=True)
class Integer(Accepts):
    """A whole number from ``least`` to ``most``; 2048.0 is one, ``true`` and "2k" are not.

    ``null`` where it is ``optional``.
    """

    least: int
    most: int = 10**12
    optional: bool = False

    def check(self, value: Any) -> int | None:
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            refused("must be a whole number", _unquoted(value))
        if not (math.isfinite(value) and value == int(value)):
            refused(
                "must be a whole number", str(max(self.least, round(value))) if math.isfinite(value) else ""
            )
        if value < self.least:
            refused(f"must be at least {self.least}", str(self.least))
        if value > self.most:
            refused(f"must be at most {self.most}", str(self.most))
        return int(value)

    @property
    def meaning(self) -> str:
        return f"a whole number, at least {self.least}" + (
            f", at most {self.most}" if self.most < 10**12 else ""
        )


@dataclass(frozen=True)
class Boolean(Accepts):
    """``true`` or ``false``, nothing else; ``null`` where the software decides."""

    optional: bool = False

    def check(self, value: Any) -> bool | None:
        if isinstance(value, bool) or (value is None and self.optional):
            return value
        word = str(value).lower()
        meant = (
            "true" if word in {"on", "yes", "y", "1"} else "false" if word in {"off", "no", "n", "0"} else ""
        )
        refused(
            "must be true or false" + (" (or null: as the software does)" if self.optional else ""), meant
        )

    @property
    def meaning(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class FlagOrNumber(Accepts):
    """``true``, ``false``, or a number above zero in place of what ``true`` takes."""

    def check(self, value: Any) -> bool | float:
        if isinstance(value, bool):
            return value
        if not isinstance(value, int | float) or not math.isfinite(value):
            refused("must be true, false or a number", _unquoted(value))
        if value <= 0:
            refused("must be true, false or a number above 0")
        of_this_world(value)
        return float(value)

    @property
    def meaning(self) -> str:
        return "true, false, or a number above 0"


@dataclass(frozen=True)
class String(Accepts):
    """Text. A number must be quoted to be one, so that nothing is read differently from how it was meant."""

    def check(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        refused(
            "must be text",
            f'"{value}"' if isinstance(value, int | float) and not isinstance(value, bool) else "",
        )

    @property
    def meaning(self) -> str:
        return "text"


@dataclass(frozen=True)
class Choice(Accepts):
    """One of a few names."""

    names: tuple[str, ...]

    def check(self, value: Any) -> str:
        if isinstance(value, str) and value in self.names:
            return value
        word = {None: "none", True: "true", False: "false"}.get(value, str(value)) if _simple(value) else ""
        shown = [name for name in self.names if name]
        refused(f"must be one of {', '.join(shown)}{self.also}", nearest(word, shown, few=0))

    @property
    def also(self) -> str:
        """What else may stand there, for the rule."""
        return ""

    @property
    def meaning(self) -> str:
        return listed(name for name in self.names if name)


@dataclass(frozen=True)
class ChoiceOrFile(Choice):
    """One of a few names, or a file by its path, relative to where it is written."""

    ending: str

    def check(self, value: Any) -> str:
        if isinstance(value, str) and value.endswith(self.ending):
            return value
        return super().check(value)

    @property
    def also(self) -> str:
        return f", or a {self.ending} file"

    @property
    def meaning(self) -> str:
        return f"{super().meaning}; or a {self.ending} file"


@dataclass(frozen=True)
class Permutation(Accepts):
    """Every one of some words, in any order, joined by hyphens."""

    words: tuple[str, ...]

    def check(self, value: Any) -> str:
        if isinstance(value, str) and sorted(value.split("-")) == sorted(self.words):
            return value
        refused(f"must hold each of {', '.join(self.words)} once, joined by '-'", "-".join(self.words))

    @property
    def meaning(self) -> str:
        return f"an order of {', '.join(self.words)}"


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _unquoted(value: Any) -> str:
    """The number a quoted one or one with a suffix ("2k") stands for."""
    if not isinstance(value, str):
        return ""
    text = value.strip().replace(",", "").replace("_", "")
    factor = {"k": 10**3, "m": 10**6, "b": 10**9}.get(text[-1:].lower(), 1)
    try:
        number = float(text if factor == 1 else text[:-1]) * factor
    except ValueError:
        return ""
    return f"{number:.15g}" if math.isfinite(number) else ""


Bytes: TypeAlias = Annotated[float, Quantity("bytes")]
BytesPerSecond: TypeAlias = Annotated[float, Quantity("bytes/s")]
FlopPerSecond: TypeAlias = Annotated[float, Quantity("FLOP/s", positive=True)]
Seconds: TypeAlias = Annotated[float, Quantity("seconds")]
Hertz: TypeAlias = Annotated[float, Quantity("hertz")]
Watts: TypeAlias = Annotated[float, Quantity("watts")]
Ratio: TypeAlias = Annotated[float, Quantity("ratio")]
Real: TypeAlias = Annotated[float, Number()]
Count: TypeAlias = Annotated[int, Integer(1)]
CountOrZero: TypeAlias = Annotated[int, Integer(0)]
Flag: TypeAlias = Annotated[bool, Boolean()]
FlagOrFactor: TypeAlias = Annotated[bool | float, FlagOrNumber()]
FlagOrAuto: TypeAlias = Annotated[bool | None, Boolean(optional=True)]
Text: TypeAlias = Annotated[str, String()]
