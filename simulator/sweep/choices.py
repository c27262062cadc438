"""A key of a sweep with several values, and conditions on what they may be together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticCustomError

from simulator.spec.fields import Accepts
from simulator.spec.run import RunSpec
from simulator.sweep.expression import Expression, ExpressionError
from simulator.sweep.names import Path, value_for


@dataclass(frozen=True, slots=True)
class Choice:
    """A value an axis takes, its name in tables, and how the file wrote it."""

    label: Any
    value: Any
    written: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A key with several values. An expression among them gives one value or a list, for each run anew."""

    path: Path
    choices: tuple[Choice | Expression, ...]
    accepts: Accepts | None = None  # what checks the values of expressions

    @property
    def key(self) -> str:
        """The key path."""
        return ".".join(self.path)

    def written(self, label: Any) -> Any:
        """How a run file says the value that tables call ``label``."""
        named = (choice for choice in self.choices if isinstance(choice, Choice))
        return next((choice.written for choice in named if choice.label == label), label)

    def values(self, run: RunSpec) -> Iterator[Choice]:
        """The values for a run whose axes before this one are set, each once.

        Raises ExpressionError where an expression has none.
        """
        seen = []
        for choice in self.choices:
            for each in (choice,) if isinstance(choice, Choice) else self._computed(choice, run):
                if each.label not in seen:
                    seen.append(each.label)
                    yield each

    def _computed(self, expression: Expression, run: RunSpec) -> Iterator[Choice]:
        found = value_for(expression, run)
        for value in found if isinstance(found, list) else [found]:
            try:
                checked = self.accepts.check(value) if self.accepts else value
            except PydanticCustomError as error:
                raise ExpressionError(f"{self.key}: {value!r} {error.message()}") from None
            yield Choice(checked, checked, checked)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A named condition that layouts must meet."""

    name: str
    condition: Expression

    def met(self, run: RunSpec, results: Mapping[str, Any] | None = None) -> bool:
        """Whether a run, and its results where the condition names some, meet it. Raises ExpressionError."""
        return bool(value_for(self.condition, run, results))


def with_key(spec: Any, path: Path, value: Any) -> Any:
    """A spec with another value at a key path."""
    key, *rest = path
    return replace(spec, **{key: with_key(getattr(spec, key), tuple(rest), value) if rest else value})
