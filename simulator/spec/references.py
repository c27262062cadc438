"""Names become what they name: a run's model and cluster, a cluster's device and links, any ``base:``."""

from __future__ import annotations

from typing import TypeAlias

from simulator.spec.catalogue import Kind, read
from simulator.spec.errors import Problem, SpecError
from simulator.spec.yaml_loader import Node

Path: TypeAlias = tuple[str, ...]

BASE = "base"
_LONGEST_CHAIN = 8

_OF_CLUSTER: dict[Path, Kind] = {
    ("device",): "devices",
    ("scale_up", "link"): "links",
    ("scale_out", "link"): "links",
    ("host", "link"): "links",
}
# Where a document of each kind refers to others, outermost first.
REFERENCES: dict[Kind, dict[Path, Kind]] = {
    "runs": {
        ("model",): "models",
        ("cluster",): "clusters",
        **{("cluster", *path): kind for path, kind in _OF_CLUSTER.items()},
    },
    "sweeps": {},
    "models": {},
    "clusters": _OF_CLUSTER,
    "devices": {},
    "links": {},
    "kernels": {},
    "fabrics": {},
}


def resolve(root: Node, kind: Kind) -> tuple[Node, list[Problem]]:
    """A document with every reference in it replaced by what it names, and what could not be found."""
    problems: list[Problem] = []
    root = _try(root, kind, (), problems)
    for path, sub_kind in REFERENCES[kind].items():
        parent = find(root, path[:-1])
        if parent is None or not isinstance(parent.value, dict) or path[-1] not in parent.value:
            continue
        parent.value[path[-1]] = _try(parent.value[path[-1]], sub_kind, path, problems)
    return root, problems


def resolve_one(node: Node, kind: Kind, path: Path) -> Node:
    """A reference replaced by what it names, at its own level only. ``path`` is for messages.

    Raises SpecError for an unknown name, an unreadable file or bases that never end.
    """
    return _resolve(node, kind, path, _LONGEST_CHAIN)


def find(node: Node, path: Path) -> Node | None:
    """The node on a key path."""
    for key in path:
        below = node.child(key)
        if below is None:
            return None
        node = below
    return node


def _try(node: Node, kind: Kind, path: Path, problems: list[Problem]) -> Node:
    try:
        return resolve_one(node, kind, path)
    except SpecError as error:
        problems.extend(error.problems)
        return node


def _resolve(node: Node, kind: Kind, path: Path, left: int) -> Node:
    if isinstance(node.value, str):
        document = _read(node, kind, path, left)
        return _resolve(Node(document.value, document.file, document.line), kind, path, left - 1)
    if not isinstance(node.value, dict) or BASE not in node.value:
        return node
    base = node.value[BASE]
    if not isinstance(base.value, str):
        rule = f"must name one of the {kind}, or a .yaml file"
        raise SpecError(_problem(base, (*path, BASE), rule))
    below = _resolve(Node(base.value, base.file, base.line), kind, (*path, BASE), left)
    own = {key: child for key, child in node.value.items() if key != BASE}
    return _merged(below, Node(own, node.file, node.line), kind, ())


def _read(node: Node, kind: Kind, path: Path, left: int) -> Node:
    assert isinstance(node.value, str)
    if not left:
        raise SpecError(
            _problem(node, path, f"more than {_LONGEST_CHAIN} files refer to one another in a row")
        )
    try:
        return read(kind, node.value, origin=node)
    except SpecError as error:
        raise SpecError(*(_at(node, path, problem) for problem in error.problems)) from None


def _at(node: Node, path: Path, problem: Problem) -> Problem:
    """What keeps a name from being found belongs where the name is; a problem inside a file stays there."""
    if problem.line or problem.key_path:
        return problem
    rule = f"{problem.file}: {problem.rule}" if problem.file else problem.rule
    return _problem(node, path, rule, problem.suggestion)


def _problem(node: Node, path: Path, rule: str, suggestion: str = "") -> Problem:
    return node.problem(".".join(path), rule, suggestion, value=node.plain())


def _merged(below: Node, above: Node, kind: Kind, path: Path) -> Node:
    """``above`` over ``below``, key by key; a mapping over a *name* changes a few keys of what is named."""
    if not isinstance(above.value, dict) or BASE in above.value:
        return above
    if isinstance(below.value, str) and path in REFERENCES[kind]:
        return Node({BASE: below, **above.value}, above.file, above.line)
    if not isinstance(below.value, dict):
        return above
    merged = dict(below.value)
    for key, child in above.value.items():
        merged[key] = _merged(merged[key], child, kind, (*path, key)) if key in merged else child
    return Node(merged, above.file, above.line)
