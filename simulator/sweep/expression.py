"""Expressions of a sweep file (``gpus // 64``, ``tp <= gpus_per_node``), read without running Python.

The text is parsed into a syntax tree, every node of which must be on a short list; the tree then becomes
nested functions. Nothing in an expression can name, call or reach anything but numbers, texts, the names it
is given and the functions in :data:`FUNCTIONS`.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeAlias

from simulator.spec.rules.violation import divisors

Names: TypeAlias = Callable[[str], Any]
"""Looks up a name, which may have dots."""
_Code: TypeAlias = Callable[[Names], Any]

LONGEST_TEXT: Final = 500
LARGEST_NUMBER: Final = 1e30
LONGEST_LIST: Final = 10_000


class ExpressionError(ValueError):
    """An expression that cannot be read or has no value; the message is the rule it breaks."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. ``names`` are those it looks up, in order of appearance."""

    text: str
    names: tuple[str, ...]
    _code: _Code

    def value(self, names: Names) -> Any:
        """The value: a number, text, truth value or list.

        Raises ExpressionError where there is none, as in a division by zero.
        """
        try:
            return self._code(names)
        except ZeroDivisionError:
            raise ExpressionError("divides by zero") from None
        except (TypeError, ValueError, OverflowError) as error:
            raise ExpressionError(str(error)) from None


def parse_expression(text: str) -> Expression:
    """Reads arithmetic, comparisons, and, or, not, if-else, lists and calls of :data:`FUNCTIONS`.

    Raises ExpressionError for anything else.
    """
    if len(text) > LONGEST_TEXT:
        raise ExpressionError(f"an expression has at most {LONGEST_TEXT} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        names: dict[str, None] = {}
        code = _compile(tree.body, names)
    except (RecursionError, MemoryError):
        raise ExpressionError("is nested too deeply") from None
    except SyntaxError as error:
        raise ExpressionError(f"is no expression: {error.msg}") from None
    return Expression(text, tuple(names), code)


def _compile(node: ast.expr, names: dict[str, None]) -> _Code:  # noqa: PLR0911  one case per kind of node
    """A function of the name table for one node; notes the names it meets."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return lambda _: value
        case ast.Name() | ast.Attribute():
            name = _dotted(node)
            names[name] = None
            return lambda look: look(name)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _applied(_UNARY[type(op)], [_compile(operand, names)])
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _applied(_BINARY[type(op)], [_compile(left, names), _compile(right, names)])
        case ast.BoolOp(op=op, values=values):
            parts = [_compile(value, names) for value in values]
            every = isinstance(op, ast.And)
            return lambda look: all(part(look) for part in parts) if every else any(p(look) for p in parts)
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in _COMPARE for op in ops):
            return _compared(
                [_COMPARE[type(op)] for op in ops], [_compile(part, names) for part in (left, *rest)]
            )
        case ast.IfExp(test=test, body=body, orelse=other):
            asked, yes, no = (_compile(part, names) for part in (test, body, other))
            return lambda look: yes(look) if asked(look) else no(look)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            parts = [_compile(item, names) for item in items]
            return lambda look: [part(look) for part in parts]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return _applied(FUNCTIONS[name], [_compile(argument, names) for argument in arguments])
        case ast.Call(func=ast.Name(id=name)):
            raise ExpressionError(f"no function {name!r}; there are {', '.join(FUNCTIONS)}")
    raise ExpressionError(f"{ast.unparse(node)!r} may not stand in an expression")


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise ExpressionError(f"{ast.unparse(node)!r} may not stand in an expression")


def _applied(function: Callable[..., Any], parts: Sequence[_Code]) -> _Code:
    return lambda look: function(*(part(look) for part in parts))


def _compared(tests: Sequence[Callable[[Any, Any], Any]], parts: Sequence[_Code]) -> _Code:
    def code(look: Names) -> bool:
        left = parts[0](look)
        for test, part in zip(tests, parts[1:], strict=True):
            right = part(look)
            if not test(left, right):
                return False
            left = right
        return True

    return code


def _number(value: Any) -> Any:
    """Arithmetic is for numbers of a sane size only: a text or list times 10⁹ would fill the memory."""
    if not isinstance(value, bool | int | float):
        raise TypeError(f"calculates with {value!r}, which is no number")
    if abs(value) > LARGEST_NUMBER:
        raise OverflowError(f"goes beyond {LARGEST_NUMBER:g}")
    return value


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *numbers: _number(function(*map(_number, numbers)))


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > 128:
        raise OverflowError("has an exponent beyond 128")
    power = base**exponent
    return power if isinstance(power, int | float) else _number(power)


def _range(start: Any, stop: Any, step: Any = 1) -> list[int]:
    numbers = range(int(_number(start)), int(_number(stop)) + 1, int(_number(step)) or 1)
    if len(numbers) > LONGEST_LIST:
        raise OverflowError(f"makes a list of {len(numbers)} numbers, more than {LONGEST_LIST}")
    return list(numbers)


def _divisors(number: Any) -> list[int]:
    if not 1 <= _number(number) <= 1e12 or number != int(number):
        raise TypeError(f"divisors() needs a whole number of at least 1, not {number!r}")
    return divisors(int(number))


def _powers_of_two(start: Any, stop: Any) -> list[int]:
    return [2**k for k in range(128) if _number(start) <= 2**k <= _number(stop)]


def _extreme(function: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    return lambda *parts: function([_number(part) for part in _flat(parts)])


def _flat(parts: Sequence[Any]) -> list[Any]:
    return reduce(lambda done, part: done + (part if isinstance(part, list) else [part]), parts, [])


_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: _arithmetic(operator.neg),
    ast.UAdd: _arithmetic(operator.pos),
    ast.Not: operator.not_,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: _arithmetic(operator.add),
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.FloorDiv: _arithmetic(operator.floordiv),
    ast.Mod: _arithmetic(operator.mod),
    ast.Pow: _arithmetic(_power),
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
}
FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "min": _extreme(min),
    "max": _extreme(max),
    "floor": _arithmetic(math.floor),
    "ceil": _arithmetic(math.ceil),
    "log2": _arithmetic(math.log2),
    "range": _range,
    "divisors": _divisors,
    "powers_of_two": _powers_of_two,
}
"""What an expression may call: ``range`` includes both ends, ``powers_of_two(a, b)`` those from a to b."""
