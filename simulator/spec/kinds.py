"""What kind of file a YAML file is, told by its keys, and what to say when another kind was asked for."""

from __future__ import annotations

from typing import Any, Final

from simulator.spec.catalogue import ARTICLES, Kind, use
from simulator.spec.cluster import ClusterSpec, DeviceSpec, LinkSpec
from simulator.spec.errors import Problem, SpecError
from simulator.spec.model import ModelSpec
from simulator.spec.run import RunSpec
from simulator.spec.schema import keys_at, optional_keys
from simulator.spec.yaml_loader import Node

RUN_OF_SWEEP: Final = "run"  # the key that only sweep files have
SPECS: Final[dict[Kind, type[Any]]] = {
    "runs": RunSpec,
    "models": ModelSpec,
    "clusters": ClusterSpec,
    "devices": DeviceSpec,
    "links": LinkSpec,
}
_OF_A_RUN: Final = set(keys_at(RunSpec, ())) - optional_keys(RunSpec, ())


def kind_of(root: Node) -> Kind | None:
    """The kind of file that has most of the keys of a document; None where it has none of them."""
    keys = set(root.value) if isinstance(root.value, dict) else set()
    if RUN_OF_SWEEP in keys and not keys & _OF_A_RUN:
        return "sweeps"
    hits = {kind: len(keys & set(keys_at(spec, ()))) for kind, spec in SPECS.items()}
    best = max(hits, key=lambda kind: hits[kind])
    return best if hits[best] else None


def expect(kind: Kind, root: Node) -> None:
    """Raises SpecError where a document has no key that tells ``kind`` apart, and those of another kind."""
    keys = set(root.value) if isinstance(root.value, dict) else set()
    telling = {"runs": _OF_A_RUN, "sweeps": {RUN_OF_SWEEP}}[kind]
    found = kind_of(root)
    if keys & telling or found in (kind, None):
        return
    assert found is not None
    rule = f"is {ARTICLES[found]} file, not {ARTICLES[kind]} file"
    raise SpecError(Problem(file=root.file, rule=rule, suggestion=use(found, root.file)))
