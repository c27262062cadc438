"""Other files that a document names: a path is relative to the file it is written in."""

from __future__ import annotations

from pathlib import Path

from simulator.spec.catalogue import Kind, is_path
from simulator.spec.errors import COMMAND_LINE, Problem, nearest
from simulator.spec.references import find
from simulator.spec.yaml_loader import Node

_OF_DEVICE: dict[tuple[str, ...], str] = {("kernels",): ".yaml"}
_OF_CLUSTER: dict[tuple[str, ...], str] = {
    ("fabric",): ".yaml",
    **{("device", *path): ending for path, ending in _OF_DEVICE.items()},
}
FILES: dict[Kind, dict[tuple[str, ...], str]] = {
    "runs": {
        ("parallelism", "schedule"): ".csv",
        **{("cluster", *path): ending for path, ending in _OF_CLUSTER.items()},
    },
    "clusters": _OF_CLUSTER,
    "devices": _OF_DEVICE,
}
"""Where a document of a kind may name a file, and how its name ends."""


def locate(root: Node, kind: Kind) -> list[Problem]:
    """Makes the paths in a document, in place, such that they can be opened; those that lead nowhere."""
    places = ((path, ending, find(root, path)) for path, ending in FILES.get(kind, {}).items())
    return [
        problem
        for path, ending, node in places
        if node is not None and isinstance(node.value, str) and _names_a_file(node.value, ending)
        for problem in _locate(node, ".".join(path), ending)
    ]


def _names_a_file(value: str, ending: str) -> bool:
    return value.endswith(ending) or (ending == ".yaml" and is_path(value))


def _locate(node: Node, key_path: str, ending: str) -> list[Problem]:
    written = str(node.value)
    path = (Path() if node.file == COMMAND_LINE else Path(node.file).parent).absolute() / written
    node.value = str(path)  # absolute: found again however often a document is looked at
    if path.is_file():
        return []
    near = nearest(path.name, [entry.name for entry in path.parent.glob(f"*{ending}")])
    return [node.problem(key_path, f"no such file: {path}", near, value=written)]
