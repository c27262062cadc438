"""Every key a file may have, as a table: from the fields themselves, so that it cannot be out of date."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from simulator.spec.fields import Accepts
from simulator.spec.schema import bare


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a file: its path (``[]``: each of a list, ``*``: any name), what it accepts and means.

    ``unit`` is that of the stored value and of a number written without one. ``default`` is as one would
    write it, or ``required``; a section whose keys have their own has none.
    """

    path: str
    accepts: str
    unit: str
    default: str
    meaning: str


def keys_of(spec: type[Any], *, below: str = "") -> Iterator[Key]:
    """The keys of a spec class such as ``RunSpec``, in the order of its fields, a section before its keys."""
    meanings = _field_docs(spec)
    hints = get_type_hints(spec, include_extras=True)
    for field in fields(spec):
        path, inner, accepts = _unfold(f"{below}{field.name}", hints[field.name])
        yield Key(
            path=path,
            accepts=accepts.meaning if accepts else "keys, below",
            unit=accepts.unit if accepts else "",
            default=_default(field),
            meaning=meanings.get(field.name, ""),
        )
        if is_dataclass(inner) and isinstance(inner, type):
            yield from keys_of(inner, below=f"{path}.")


def _unfold(path: str, hint: Any) -> tuple[str, Any, Accepts | None]:
    """The path with its list and name marks, the innermost type, and what accepts a value there."""
    accepts = _accepts(hint)
    inner = bare(hint)
    if accepts is None and get_origin(inner) is tuple:
        return _unfold(f"{path}[]", get_args(inner)[0])
    if accepts is None and get_origin(inner) is dict:
        return _unfold(f"{path}.*", get_args(inner)[1])
    return path, inner, accepts


def _accepts(hint: Any) -> Accepts | None:
    if get_origin(hint) is not Annotated:
        return None
    return next((part for part in get_args(hint)[1:] if isinstance(part, Accepts)), None)


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        made = field.default_factory()
        return "" if is_dataclass(made) else str(made)
    if field.default is MISSING:
        return "required"
    value = field.default
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _field_docs(spec: type[Any]) -> dict[str, str]:
    """The string below each field of a class."""
    (definition,) = ast.parse(inspect.getsource(spec)).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr):
            docs[field.target.id] = str(ast.literal_eval(below.value))
    return docs
