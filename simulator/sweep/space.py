"""The space of a sweep: a run in which some keys take several values, and what makes a layout illegal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final

from pydantic_core import PydanticCustomError

from simulator.spec.errors import Problem, SpecError
from simulator.spec.fields import Accepts
from simulator.spec.rules import RULES, Violation
from simulator.spec.rules.not_modelled import NOT_MODELLED
from simulator.spec.run import RunSpec
from simulator.sweep.expression import Expression, ExpressionError
from simulator.sweep.names import Path, value_for

MAX_COMBINATIONS: Final = 2_000_000


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


@dataclass(frozen=True, slots=True)
class Layout:
    """A legal combination. ``labels`` has one entry per axis; ``number`` counts legal layouts from 1."""

    number: int
    labels: tuple[Any, ...]
    run: RunSpec


@dataclass(slots=True)
class Census:
    """Combinations seen: how many, and the illegal ones by the first rule each breaks, with an example."""

    combinations: int = 0
    legal: int = 0
    illegal: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def refuse(self, rule: str, example: str) -> None:
        """Counts an illegal combination."""
        self.combinations += 1
        self.illegal[rule] += 1
        self.examples.setdefault(rule, example)


class TooManyCombinationsError(SpecError):
    """More combinations than anyone would wait for."""

    def __init__(self, count: str, sizes: Mapping[str, int]) -> None:
        rule = f"{count} combinations are too many to look at; at most {MAX_COMBINATIONS:,} are"
        values = ", ".join(f"{key} has {size:,}" for key, size in sizes.items())
        super().__init__(Problem(key_path="run", rule=rule, suggestion=f"give fewer values: {values}"))


def refuse_too_many(sizes: Mapping[str, int]) -> None:
    """Raises TooManyCombinationsError where the product of the axes' sizes is beyond all patience."""
    if prod(sizes.values()) > MAX_COMBINATIONS:
        raise TooManyCombinationsError(f"{prod(sizes.values()):,}", sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """``axes`` are in an order in which none depends on a later one."""

    base: RunSpec
    axes: tuple[Axis, ...]
    constraints: tuple[Constraint, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The values of each axis, an expression counted as one."""
        return {axis.key: len(axis.choices) for axis in self.axes}

    def layouts(self, census: Census) -> Iterator[Layout]:
        """Every legal layout, in the order of the axes, the last one varying fastest.

        Raises TooManyCombinationsError beyond :data:`MAX_COMBINATIONS`.
        """
        refuse_too_many(self.sizes)
        for run, labels in self._combinations(self.base, (), census):
            if census.combinations >= MAX_COMBINATIONS:
                raise TooManyCombinationsError(f"more than {MAX_COMBINATIONS:,}", self.sizes)
            broken = self._broken(run)
            if broken is not None:
                census.refuse(broken.name, _example(self.axes, labels, broken))
                continue
            census.combinations += 1
            census.legal += 1
            yield Layout(census.legal, labels, run)

    def _combinations(
        self, run: RunSpec, labels: tuple[Any, ...], census: Census
    ) -> Iterator[tuple[RunSpec, tuple[Any, ...]]]:
        if len(labels) == len(self.axes):
            yield run, labels
            return
        axis = self.axes[len(labels)]
        try:
            for choice in axis.values(run):
                chosen = with_key(run, axis.path, choice.value)
                yield from self._combinations(chosen, (*labels, choice.label), census)
        except ExpressionError as error:
            broken = Violation(axis.key, "", str(error))
            census.refuse(f"value of {axis.key}", _example(self.axes, labels, broken))

    def _broken(self, run: RunSpec) -> Violation | None:
        """The first constraint or rule that a run breaks."""
        for constraint in self.constraints:
            try:
                met = constraint.met(run)
            except ExpressionError as error:
                return Violation("", "", str(error), name=constraint.name)
            if not met:
                return Violation("", "", f"must meet {constraint.condition.text}", name=constraint.name)
        return _first_broken_rule(run)


def _first_broken_rule(run: RunSpec) -> Violation | None:
    """What :func:`simulator.spec.rules.broken_layout_rules` begins with, without looking for more."""
    for rule in RULES:
        for violation in rule(run):
            return violation._replace(name=rule.__name__)
    for find in NOT_MODELLED:
        for violation in find(run):
            return violation._replace(name="not_modelled")
    return None


def with_key(spec: Any, path: Path, value: Any) -> Any:
    """A spec with another value at a key path."""
    key, *rest = path
    return replace(spec, **{key: with_key(getattr(spec, key), tuple(rest), value) if rest else value})


def _example(axes: tuple[Axis, ...], labels: tuple[Any, ...], broken: Violation) -> str:
    """The rule, and one combination that breaks it, in words."""
    at = ", ".join(f"{axis.path[-1]} {_flow(label)}" for axis, label in zip(axes, labels, strict=False))
    subject = f"{broken.key_path} {broken.rule}".strip()
    return subject + (f" (try {broken.suggestion})" if broken.suggestion else "") + f"; with {at}"


def _flow(value: Any) -> str:
    """A value as a line of YAML has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
