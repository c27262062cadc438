"""Finds the keys of a run file that take several values: lists, ranges and expressions."""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from simulator.spec.errors import Problem
from simulator.spec.fields import Accepts, Boolean, Choice, Integer, Number
from simulator.spec.run import RunSpec
from simulator.spec.schema import bare
from simulator.spec.yaml_loader import Node
from simulator.sweep.expression import LONGEST_LIST, Expression, ExpressionError, parse_expression
from simulator.sweep.names import Path, dependencies, needs_result

_SPELLED_BOOLEANS = frozenset({"on", "off", "yes", "no", "y", "n"})


@dataclass(frozen=True, slots=True)
class AxisNode:
    """A key with several values, as written: documents and expressions."""

    path: Path
    items: tuple[Node | Expression, ...]
    accepts: Accepts | None


@dataclass(slots=True)
class Found:
    """A run document with one value at each key, and the axes taken out of it."""

    root: Node
    axes: list[AxisNode] = field(default_factory=list)


def find_axes(root: Node) -> tuple[Found, list[Problem]]:
    """The axes of a run document, and what is wrong with them. ``root`` stays as it is."""
    found, problems = Found(root), []  # type: Found, list[Problem]
    found.root = _walk(root, RunSpec, (), found.axes, problems)
    return found, problems


def _walk(node: Node, hint: Any, path: Path, axes: list[AxisNode], problems: list[Problem]) -> Node:
    """The document with the first value of every axis in place of it."""
    inner, accepts = bare(hint), _accepts(hint)
    try:
        items = _items(node, inner, accepts)
    except ExpressionError as error:
        problems.append(node.problem(".".join(path), str(error), value=node.plain()))
        return node
    if items is not None:
        axes.append(AxisNode(path, items, accepts))
        first = next((item for item in items if isinstance(item, Node)), None)
        return first or Node(_placeholder(accepts), node.file, node.line)
    if isinstance(node.value, dict) and is_dataclass(inner):
        hints = get_type_hints(inner, include_extras=True)
        children = {
            key: _walk(child, hints[key], (*path, key), axes, problems) if key in hints else child
            for key, child in node.value.items()
        }
        return Node(children, node.file, node.line)
    return node


def _items(node: Node, inner: Any, accepts: Accepts | None) -> tuple[Node | Expression, ...] | None:
    """The values of an axis; None where the key has one value. Raises ExpressionError."""
    value = node.value
    if isinstance(value, dict) and not is_dataclass(inner) and get_origin(inner) is not dict:
        return _spelled_out(value, accepts)
    if isinstance(value, list):
        if get_origin(inner) is tuple and not (value and all(isinstance(i.value, list) for i in value)):
            return None  # the key takes a list
        if not value:
            raise ExpressionError(
                "an empty list leaves nothing to try; give at least one value, or leave the key out"
            )
        return tuple(_item(item, accepts) for item in value)
    item = _item(node, accepts)
    return (item,) if isinstance(item, Expression) else None


def _item(node: Node, accepts: Accepts | None) -> Node | Expression:
    """Text where a number or a truth value belongs is an expression."""
    if not isinstance(node.value, str) or not isinstance(accepts, Integer | Number | Boolean):
        return node
    if node.value.strip().lower() in _SPELLED_BOOLEANS:
        return node
    return _expression(node.value)


def _expression(text: str) -> Expression:
    expression = parse_expression(text)
    if needs_result(expression):
        raise ExpressionError("depends on a result; only constraints may")
    dependencies(expression)
    return expression


def _spelled_out(value: dict[str, Node], accepts: Accepts | None) -> tuple[Node | Expression, ...]:
    """``{range: [1, 64], step: 2}``, ``{range: [1, 64], factor: 2}`` or ``{expression: TEXT}``."""
    if set(value) == {"expression"} and accepts is not None:
        return (_expression(str(value["expression"].value)),)
    if "range" not in value or not set(value) <= {"range", "step", "factor"} or len(value) > 2:
        raise ExpressionError(
            "must be one value, a list, {range: [first, last], step: 1}, "
            "{range: [first, last], factor: 2} or {expression: ...}"
        )
    ends = value["range"].plain()
    if not (isinstance(ends, list) and len(ends) == 2 and all(_is_number(end) for end in ends)):
        raise ExpressionError(f"range must be [first, last], two numbers, not {ends!r}")
    key = "factor" if "factor" in value else "step"
    by = value[key].plain() if key in value else 1
    place = value["range"]
    return tuple(Node(number, place.file, place.line) for number in _steps(ends[0], ends[1], key, by))


def _steps(first: float, last: float, key: str, by: Any) -> list[float]:
    least = 1 if key == "factor" else 0
    if not _is_number(by) or by <= least or (key == "factor" and first <= 0):
        raise ExpressionError(f"{key} must be a number above {least}, not {by!r}")
    numbers, number = [], first
    while number <= last:
        numbers.append(number)
        number = number * by if key == "factor" else number + by
        if len(numbers) > LONGEST_LIST:
            raise ExpressionError(f"the range has more than {LONGEST_LIST} values")
    if not numbers:
        raise ExpressionError(f"the range from {first} to {last} is empty")
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _accepts(hint: Any) -> Accepts | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((part for part in get_args(hint)[1:] if isinstance(part, Accepts)), None)


def _placeholder(accepts: Accepts | None) -> Any:
    """A value that passes for any where only expressions are given."""
    match accepts:
        case Integer(least=least):
            return max(1, least)
        case Number(least=least):
            return least
        case Boolean():
            return False
        case Choice(names=names):
            return names[-1]
    return 1
