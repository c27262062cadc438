"""The runs of a space by the places of their values on its axes; what runs have in common is one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from simulator.spec.run import RunSpec
from simulator.sweep.choices import Axis, Choice, with_key
from simulator.sweep.expression import ExpressionError
from simulator.sweep.names import Path
from simulator.sweep.remembered import Places, Remembered


class _Found(NamedTuple):
    """The values of an axis for a run, by their places, up to an expression that has none."""

    places: Places
    error: ExpressionError | None


class Runs:
    """Makes runs, section by section: each of a section's combinations is made once."""

    def __init__(self, base: RunSpec, axes: Sequence[Axis]) -> None:
        self._base = base
        self._seen: list[list[Choice]] = [[] for _ in axes]
        paths = [axis.path for axis in axes]
        self._values = [Remembered(self._finder(index, axis), paths) for index, axis in enumerate(axes)]
        self._sections: dict[str, list[tuple[int, Path]]] = {}
        for index, (key, *rest) in enumerate(paths):
            self._sections.setdefault(key, []).append((index, tuple(rest)))
        self._known: dict[tuple[str, Places], Any] = {}

    def run(self, places: Places) -> RunSpec:
        """The run at these places; axes that have none keep the value of the base."""
        sections = {}
        for key, axes in self._sections.items():
            at = tuple([places[index] for index, _ in axes if index < len(places)])
            found = self._known.get((key, at))
            if found is None:
                found = self._known[key, at] = self._section(key, axes, at)
            sections[key] = found
        return replace(self._base, **sections)

    def values(self, places: Places) -> _Found:
        """The values of the axis after these."""
        return self._values[len(places)](places, self.run)

    def labels(self, places: Places) -> tuple[Any, ...]:
        """What tables call the values at these places."""
        return tuple([seen[place].label for seen, place in zip(self._seen, places, strict=False)])

    def _section(self, key: str, axes: Sequence[tuple[int, Path]], at: Places) -> Any:
        section = getattr(self._base, key)
        for (index, path), place in zip(axes, at, strict=False):
            value = self._seen[index][place].value
            section = with_key(section, path, value) if path else value
        return section

    def _finder(self, index: int, axis: Axis) -> Callable[[RunSpec], _Found]:
        seen = self._seen[index]

        def find(run: RunSpec) -> _Found:
            places = []
            try:
                for choice in axis.values(run):
                    if choice not in seen:
                        seen.append(choice)
                    places.append(seen.index(choice))
            except ExpressionError as error:
                return _Found(tuple(places), error)
            return _Found(tuple(places), None)

        return find
