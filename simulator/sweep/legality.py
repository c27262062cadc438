"""Which rule does a combination break first? Asked of groups of rules that read the same axes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from simulator.spec.rules import RULES, Violation
from simulator.spec.rules.not_modelled import NOT_MODELLED
from simulator.spec.run import RunSpec
from simulator.sweep.choices import Constraint
from simulator.sweep.expression import ExpressionError
from simulator.sweep.names import Path
from simulator.sweep.remembered import Places, Remembered, RunOf, key_of

Rule: TypeAlias = Callable[[RunSpec], Iterator[Violation]]
Find: TypeAlias = Callable[[RunSpec], Violation | None]


class _First(NamedTuple):
    """The first rule of a group that is broken, counting all rules."""

    number: int
    violation: Violation


@dataclass(slots=True)
class _Group:
    """Rules that read the same axes, and what they say at the places known so far."""

    needs: Places
    rules: list[tuple[int, Remembered[Violation | None]]] = field(default_factory=list)
    known: dict[Hashable, _First | None] = field(default_factory=dict)
    key: Callable[[Places], Hashable] = field(init=False)

    def __post_init__(self) -> None:
        self.key = key_of(self.needs)

    def first(self, places: Places, run_of: RunOf) -> _First | None:
        for number, rule in self.rules:
            violation = rule(places, run_of)
            if violation is not None:
                return _First(number, violation)
        return None

    @property
    def is_one(self) -> bool:
        """Whether its rules still read the same axes."""
        return all(rule.needs == self.needs for _, rule in self.rules)


class Legality:
    """The constraints of a space, then the layout rules, then what is not modelled, in that order."""

    def __init__(self, constraints: Sequence[Constraint], axes: Sequence[Path]) -> None:
        finds = (*map(_unmet, constraints), *map(_broken, RULES), *map(_unknown, NOT_MODELLED))
        self._rules = [Remembered(find, axes) for find in finds]
        self._groups: list[_Group] = []
        self._regroup()

    def first_broken(self, places: Places, run_of: RunOf) -> Violation | None:
        """What comes first of all that the run at these places breaks."""
        first: _First | None = None
        for group in self._groups:
            key = group.key(places)
            if key not in group.known:
                found = group.first(places, run_of)
                if not group.is_one:
                    self._regroup()
                    return self.first_broken(places, run_of)
                group.known[key] = found
            broken = group.known[key]
            if broken is not None and (first is None or broken.number < first.number):
                first = broken
        return first.violation if first else None

    def _regroup(self) -> None:
        groups: dict[Places, _Group] = {}
        for number, rule in enumerate(self._rules):
            groups.setdefault(rule.needs, _Group(rule.needs)).rules.append((number, rule))
        self._groups = list(groups.values())


def _unmet(constraint: Constraint) -> Find:
    def find(run: RunSpec) -> Violation | None:
        try:
            met = constraint.met(run)
        except ExpressionError as error:
            return Violation("", "", str(error), name=constraint.name)
        rule = f"must meet {constraint.condition.text}"
        return None if met else Violation("", "", rule, name=constraint.name)

    return find


def _broken(rule: Rule) -> Find:
    def find(run: RunSpec) -> Violation | None:
        return next((violation._replace(name=rule.__name__) for violation in rule(run)), None)

    return find


def _unknown(find_all: Rule) -> Find:
    def find(run: RunSpec) -> Violation | None:
        return next((violation._replace(name="not_modelled") for violation in find_all(run)), None)

    return find
