"""``--set key.path=value``: one value of a document replaced from the command line."""

from __future__ import annotations

from dataclasses import replace

from simulator.spec.catalogue import Kind
from simulator.spec.errors import COMMAND_LINE, Problem, SpecError
from simulator.spec.references import REFERENCES, resolve_one
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
        child = node.value.get(key, Node({}, COMMAND_LINE))
        if here in REFERENCES[kind]:
            child = resolve_one(child, REFERENCES[kind][here], here)
        node.value[key] = child
        node = child
    return root


def _problem(path: tuple[str, ...], rule: str) -> Problem:
    return Problem(file=COMMAND_LINE, key_path=".".join(path), rule=rule)
