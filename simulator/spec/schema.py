"""A tree of YAML values becomes a frozen spec object, or a list of everything that is wrong with it."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from simulator.spec.errors import ABSENT, Problem, listed, nearest
from simulator.spec.fields import REFUSED
from simulator.spec.yaml_loader import Node

T = TypeVar("T")
Loc = tuple[str | int, ...]

_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
_KINDS = {  # pydantic's error types, for those that no field type of ours already covers
    "dataclass_type": "must be a mapping of keys",
    "dataclass_exact_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
}


def validate(spec: type[T], root: Node) -> tuple[T | None, list[Problem]]:
    """The object a tree describes, or None and every problem found in the tree."""
    try:
        valid: T = _adapter(spec).validate_python(root.plain())
        return valid, []
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return None, [_problem(spec, root, detail) for detail in details]


def key_path(loc: Loc) -> str:
    """``("cluster", "tiers", 0)`` as ``cluster.tiers.0``."""
    return ".".join(str(part) for part in loc if part != "[key]")


def keys_at(schema: Any, loc: Loc) -> tuple[str, ...]:
    """The keys a mapping at a place may have; empty where any may stand."""
    return tuple(field.name for field in fields_at(schema, loc))


def fields_at(schema: Any, loc: Loc) -> tuple[Field[Any], ...]:
    """The fields whose keys a mapping at a place may have; empty where any may stand."""
    spec = schema
    for part in loc:
        spec = bare(spec)
        if is_dataclass(spec):
            spec = get_type_hints(spec, include_extras=True).get(str(part))
        else:
            arguments = get_args(spec)
            spec = arguments[-1 if get_origin(spec) is dict else 0] if arguments else None
    spec = bare(spec)
    return fields(spec) if is_dataclass(spec) else ()


def optional_keys(schema: Any, loc: Loc) -> set[str]:
    """Those of :func:`keys_at` that have a default."""
    return {
        field.name
        for field in fields_at(schema, loc)
        if not field.default is field.default_factory is MISSING
    }


def _in_sections(spec: Any, loc: Loc) -> list[str]:
    """Where a key that stands at the top belongs."""
    sections = keys_at(spec, ()) if len(loc) == 1 else ()
    return [f"{section}.{loc[0]}" for section in sections if loc[0] in keys_at(spec, (section,))]


def _adapter(spec: type[Any]) -> TypeAdapter[Any]:
    """Built once per process and type: it takes 40 ms for a whole run."""
    if spec not in _ADAPTERS:
        _ADAPTERS[spec] = TypeAdapter(spec)
    return _ADAPTERS[spec]


def bare(spec: Any) -> Any:
    """A type without ``Annotated`` and ``None``."""
    while True:
        if get_origin(spec) is Annotated:
            spec = get_args(spec)[0]
        elif get_origin(spec) in {Union, UnionType}:
            spec = next(part for part in get_args(spec) if part is not type(None))
        else:
            return spec


def _problem(spec: Any, root: Node, detail: ErrorDetails) -> Problem:
    loc, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    node = root.nearest(loc)
    value: object = node.plain()
    suggestion = ""
    if kind == "missing":
        value, rule = ABSENT, "this key is required"
    elif kind == "unexpected_keyword_argument":
        known = keys_at(spec, loc[:-1])
        rule, suggestion = (
            f"unknown key; {key_path(loc[:-1]) or 'the top'} has {', '.join(known)}",
            listed(_in_sections(spec, loc)) or nearest(str(loc[-1]), known, few=0),
        )
    elif kind == REFUSED:
        rule, suggestion = str(context["rule"]), str(context["suggestion"])
    else:
        rule = _KINDS.get(kind, detail["msg"])
        known = keys_at(spec, loc)
        if known and "mapping" in rule:
            suggestion = f"keys: {', '.join(known)}"
            if value is None and loc and loc[-1] in optional_keys(spec, loc[:-1]):
                suggestion = f"leave it out, or give {known[0]}, …"
    if loc and loc[-1] == "[key]":
        value, rule = loc[-2], f"as a key: {rule}"
    return node.problem(key_path(loc), rule, suggestion, value=value)
