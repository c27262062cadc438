"""Values inside a shell script: arithmetic, conditions, and what cannot be known."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Final

UNKNOWN: Final = re.compile("\x01([^\x02]*)\x02")
"""Marks in an expanded word what is not known; the group says what it is."""

_OPERATIONS: Final[dict[type, Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.Div: operator.floordiv,
    ast.FloorDiv: operator.floordiv,
}
_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-lt": operator.lt,
    "-le": operator.le,
    "-gt": operator.gt,
    "-ge": operator.ge,
}


def unknown(what: str) -> str:
    """The mark for something that is not known."""
    return "\x01" + what.replace(" ", "\xa0") + "\x02"  # one word, however it is quoted


def evaluated(text: str) -> int | None:
    """The value of whole-number arithmetic; None where it is none."""

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return int(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            return _OPERATIONS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -value(node.operand)
        raise ValueError(text)

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def unknown_in(text: str) -> str:
    """What is not known in an expanded word; empty where all is."""
    found = UNKNOWN.search(text)
    return found[1].replace("\xa0", " ") if found else ""


def decided(words: list[str]) -> bool | None:
    """Whether a test (without its brackets) holds; None where it asks more than values of variables."""
    for joint, both in (("||", any), ("&&", all), ("-o", any), ("-a", all)):
        if joint in words:
            at = words.index(joint)
            sides = [decided(words[:at]), decided(words[at + 1 :])]
            return None if None in sides else both(bool(side) for side in sides)
    if words[:1] == ["!"]:
        inner = decided(words[1:])
        return None if inner is None else not inner
    if words[:1] in (["-n"], ["-z"]):
        empty = len(words) == 1 or not words[1] or bool(unknown_in(words[1]))
        return empty == (words[0] == "-z")
    return _compared(*words) if len(words) == 3 and not any(map(unknown_in, words)) else None


def _compared(left: str, sign: str, right: str) -> bool | None:
    if sign in ("=", "==", "!="):
        return (left == right) == (sign != "!=")
    numbers = evaluated(left), evaluated(right)
    if sign not in _COMPARISONS or None in numbers:
        return None
    return _COMPARISONS[sign](*numbers)  # type: ignore[arg-type]  # None is excluded above
