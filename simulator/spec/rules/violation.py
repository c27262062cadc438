"""A broken rule, and the numbers nearest to a wrong one."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from simulator.spec.errors import listed


class Violation(NamedTuple):
    """A broken rule: the key to change, its value, the rule in words, and what would do.

    ``name`` is the rule's short name, set by whoever runs the rules.
    """

    key_path: str
    value: object
    rule: str
    suggestion: str = ""
    name: str = ""


def near_multiples(step: int, near: int) -> str:
    """The multiples of ``step`` on both sides of a number."""
    below = near // step * step
    return listed([value for value in (below, below + step) if value])


def near_divisors(number: int, near: int) -> str:
    """The divisors of a number on both sides of another."""
    return near_choices(divisors(number), near)


def near_choices(choices: list[int], near: int) -> str:
    """The choices on both sides of a number."""
    below = [choice for choice in choices if choice <= near]
    above = [choice for choice in choices if choice > near]
    return listed([*([max(below)] if below else []), *([min(above)] if above else [])])


def divisors(number: int) -> list[int]:
    """All of them, ascending."""
    small = [d for d in range(1, isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
