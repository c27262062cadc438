"""``--set key.path=value``: one value of a document replaced from the command line, or taken out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simulator.spec.catalogue import Kind
from simulator.spec.errors import COMMAND_LINE, Problem, SpecError
from simulator.spec.references import REFERENCES, resolve_one
from simulator.spec.schema import keys_at, optional_keys
from simulator.spec.yaml_loader import Node, parse_yaml


def parse_override(text: str) -> tuple[tuple[str, ...], Node]:
    """The key path and the value of ``key.path=value``; the value is read as YAML.

    Raises SpecError when the text has no such form.
    """
    key_path, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key_path.split("."))
    if not equals or not all(path):
        rule = f"{text!r} must have the form key.path=value"
        raise SpecError(Problem(file=COMMAND_LINE, rule=rule, suggestion=f"{COMMAND_LINE} parallelism.tp=8"))
    try:
        return path, parse_yaml(value, COMMAND_LINE, numbered=False)
    except SpecError as error:
        wrong = (replace(problem, key_path=".".join(path), value=value) for problem in error.problems)
        raise SpecError(*wrong) from None


def set_value(root: Node, kind: Kind, path: tuple[str, ...], value: Node) -> Node:
    """A document with ``value`` at a key path. Lists take an index; names on the way become what they name.

    Changes ``root`` in place, and returns it (or what its ``base`` made of it). A key that does not exist is
    added: the schema refuses it later, like one in a file.

    Raises SpecError when the path runs through a value that has no keys, or past the end of a list.
    """
    root = resolve_one(root, kind, ())
    node = root
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node.value, list):
            items = node.value
            if not key.isdecimal() or int(key) >= len(items):
                raise SpecError(
                    _problem(path, f"{'.'.join(path[:depth])} is a list with indexes 0 to {len(items) - 1}")
                )
            if last:
                items[int(key)] = value
            node = items[int(key)]
            continue
        if not isinstance(node.value, dict):
            raise SpecError(
                _problem(path, f"{'.'.join(path[:depth])} is {node.plain()!r}, which has no keys")
            )
        if last:
            node.value[key] = value
            break
        here = path[: depth + 1]
        child = node.value.get(key, Node(None))
        child = Node({}, COMMAND_LINE) if child.value is None else child
        if here in REFERENCES[kind]:
            child = resolve_one(child, REFERENCES[kind][here], here)
        node.value[key] = child
        node = child
    return root


def leave_out_nulls(root: Node, spec: type[Any], path: tuple[str, ...] = ()) -> None:
    """Takes out of a document, in place, what ``--set key.path=`` or ``=null`` asks to leave to its default.

    A key that ``spec`` requires or does not know stays, for the schema to refuse; so does a null in a file.
    """
    value = root.value
    if isinstance(value, list):
        value[:] = [item for item in value if not _given_null(item)]
        for index, item in enumerate(value):
            leave_out_nulls(item, spec, (*path, str(index)))
    elif isinstance(value, dict):
        optional = optional_keys(spec, path) if keys_at(spec, path) else set(value)
        for key, child in list(value.items()):
            if key in optional and _given_null(child):
                del value[key]
            else:
                leave_out_nulls(child, spec, (*path, key))


def _given_null(node: Node) -> bool:
    return node.value is None and node.file == COMMAND_LINE


def _problem(path: tuple[str, ...], rule: str) -> Problem:
    return Problem(file=COMMAND_LINE, key_path=".".join(path), rule=rule)
