"""Where the time of a step went, in words and in the order in which people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

KINDS = ("compute", "communication", "bubble", "jitter", "optimizer", "host", "other")
_COMMUNICATION = ("exposed", "tp", "cp", "ep", "pp", "dp")


class Cause(NamedTuple):
    """A part of the step: its label in words, its kind, and its seconds."""

    words: str
    kind: str
    seconds: float


def causes(breakdown_s: Mapping[str, float], *, least_s: float = 0.0) -> list[Cause]:
    """The causes that took time, by kind in the order of :data:`KINDS`; largest first.

    Kernels that took less than ``least_s`` are put together, unless there is only one.
    """
    found = [Cause(words(label), kind(label), value) for label, value in breakdown_s.items() if value > 0]
    small = [cause for cause in found if cause.kind == "compute" and cause.seconds < least_s]
    if len(small) > 1:
        together = Cause(f"{len(small)} other kernels", "compute", sum(cause.seconds for cause in small))
        found = [cause for cause in found if cause not in small]
        rest = sorted(found, key=_place)
        last = sum(cause.kind == "compute" for cause in rest)
        return [*rest[:last], together, *rest[last:]]
    return sorted(found, key=_place)


def by_kind(breakdown_s: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each kind of cause that took time."""
    spent: dict[str, float] = {}
    for cause in causes(breakdown_s):
        spent[cause.kind] = spent.get(cause.kind, 0.0) + cause.seconds
    return spent


def _place(cause: Cause) -> tuple[int, float]:
    return KINDS.index(cause.kind), -cause.seconds


def kind(label: str) -> str:
    """What sort of cause a label of the breakdown names."""
    first = label.partition("_")[0]
    if first in _COMMUNICATION:
        return "communication"
    return first if first in KINDS[2:] else "compute"


def words(label: str) -> str:
    """The label in words; communication in the breakdown is the exposed part of it."""
    text = label.replace("_", " ")
    return f"exposed {text}" if kind(label) == "communication" and not text.startswith("exposed") else text
