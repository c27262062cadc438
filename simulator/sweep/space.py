"""The space of a sweep: a run in which some keys take several values, and what makes a layout illegal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, Final

from simulator.spec.errors import Problem, SpecError
from simulator.spec.rules import Violation
from simulator.spec.run import RunSpec
from simulator.sweep.choices import Axis, Constraint
from simulator.sweep.legality import Legality
from simulator.sweep.remembered import Places
from simulator.sweep.runs import Runs

MAX_COMBINATIONS: Final = 2_000_000


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

    def refuse(self, rule: str, example: Callable[[], str]) -> None:
        """Counts an illegal combination."""
        self.combinations += 1
        self.illegal[rule] += 1
        if rule not in self.examples:
            self.examples[rule] = example()


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
        runs = Runs(self.base, self.axes)
        legality = Legality(self.constraints, [axis.path for axis in self.axes])
        for places in self._combinations(runs, (), census):
            if census.combinations >= MAX_COMBINATIONS:
                raise TooManyCombinationsError(f"more than {MAX_COMBINATIONS:,}", self.sizes)
            broken = legality.first_broken(places, runs.run)
            if broken is not None:
                census.refuse(broken.name, partial(_example, self.axes, runs, places, broken))
                continue
            census.combinations += 1
            census.legal += 1
            yield Layout(census.legal, runs.labels(places), runs.run(places))

    def _combinations(self, runs: Runs, places: Places, census: Census) -> Iterator[Places]:
        """By axis, which of its values, for every combination."""
        if len(places) == len(self.axes):
            yield places
            return
        found, error = runs.values(places)
        if len(places) + 1 == len(self.axes):
            yield from ((*places, place) for place in found)
        else:
            for place in found:
                yield from self._combinations(runs, (*places, place), census)
        if error is not None:
            axis = self.axes[len(places)]
            broken = Violation(axis.key, "", str(error))
            census.refuse(f"value of {axis.key}", partial(_example, self.axes, runs, places, broken))


def _example(axes: tuple[Axis, ...], runs: Runs, places: Places, broken: Violation) -> str:
    """The rule, and one combination that breaks it, in words."""
    at = ", ".join(
        f"{axis.path[-1]} {_flow(label)}" for axis, label in zip(axes, runs.labels(places), strict=False)
    )
    subject = f"{broken.key_path} {broken.rule}".strip()
    subject += f" (try {broken.suggestion})" if broken.suggestion else ""
    return f"{subject}; with {at}" if at else subject


def _flow(value: Any) -> str:
    """A value as a line of YAML has it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
