"""Functions of a run, remembered by what of it they read: a rule about two keys is asked once for each pair.

What a function reads may depend on what it has read before. Two runs that agree in every key that was ever
read still get the same answer: step by step, the function reads the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from types import FunctionType, MethodType
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast

from simulator.spec.run import RunSpec
from simulator.sweep.names import Path

T = TypeVar("T")
Places: TypeAlias = tuple[int, ...]
"""By axis, which of its values a run has."""
RunOf: TypeAlias = Callable[[Places], RunSpec]
_UNKNOWN: Final = object()


class _Watched:
    """Stands for a run, or for a section of it that axes lead into, and notes the keys that are read."""

    __slots__ = ("_into", "_path", "_read", "_thing")

    def __init__(self, thing: Any, path: Path, into: frozenset[Path], read: set[Path]) -> None:
        self._thing, self._path, self._into, self._read = thing, path, into, read

    def __getattr__(self, name: str) -> Any:
        found = getattr(type(self._thing), name, None)
        if isinstance(found, property) and found.fget is not None:
            return found.fget(self)
        if isinstance(found, FunctionType):
            return MethodType(found, self)
        path, value = (*self._path, name), getattr(self._thing, name)
        if path in self._into:
            return _Watched(value, path, self._into, self._read)
        self._read.add(path)
        return value

    def __eq__(self, other: object) -> bool:
        self._read.add(self._path)
        return bool(self._thing == other)

    def __hash__(self) -> int:
        self._read.add(self._path)
        return hash(self._thing)


class Remembered(Generic[T]):
    """A function of a run. ``needs`` are the axes that it has been seen to read."""

    def __init__(self, function: Callable[[RunSpec], T], axes: Sequence[Path]) -> None:
        self._function = function
        self._axes = axes
        self._into = frozenset(path[:length] for path in axes for length in range(1, len(path)))
        self._known: dict[Hashable, T] = {}
        self.needs: Places = ()
        self.key = key_of(())

    def __call__(self, places: Places, run_of: RunOf) -> T:
        """Its answer for the run at these places, of which those of the last axes may be missing yet."""
        found = self._known.get(self.key(places), _UNKNOWN)
        if found is _UNKNOWN:
            read: set[Path] = set()
            found = self._function(cast(RunSpec, _Watched(run_of(places), (), self._into, read)))
            more = {i for i, axis in enumerate(self._axes) if any(_overlap(axis, path) for path in read)}
            if not more <= set(self.needs):
                self.needs = tuple(sorted(more.union(self.needs)))
                self.key = key_of(self.needs)
                self._known.clear()
            self._known[self.key(places)] = found
        return cast(T, found)


def key_of(needs: Places) -> Callable[[Places], Hashable]:
    """Picks the places of some axes."""
    return itemgetter(*needs) if needs else lambda _: None


def _overlap(a: Path, b: Path) -> bool:
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]
