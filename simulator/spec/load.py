"""From a YAML file to validated objects: the only door into the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from simulator.spec import catalogue
from simulator.spec.catalogue import Kind
from simulator.spec.cluster import ClusterSpec, DeviceSpec, LinkSpec
from simulator.spec.errors import Problem, SpecError
from simulator.spec.kinds import expect
from simulator.spec.located import locate
from simulator.spec.model import ModelSpec
from simulator.spec.overrides import leave_out_nulls, parse_override, set_value
from simulator.spec.references import resolve
from simulator.spec.rules import Violation, broken_cluster_rules, broken_model_rules, broken_rules
from simulator.spec.run import RunSpec
from simulator.spec.schema import validate
from simulator.spec.yaml_loader import Node, parse_yaml, read_yaml

T = TypeVar("T")


def load_run(path: str | Path, overrides: Iterable[str] = ()) -> RunSpec:
    """A run file, or a run that ships by its name, with the layout checked.

    Args:
        path: a YAML file, or a name in ``workloads/runs``.
        overrides: ``key.path=value`` each, as on the command line after ``--set``; applied in order.

    Raises:
        SpecError: everything that is wrong with the file, the files it names and the overrides.
    """
    return _load(RunSpec, "runs", _document("runs", path), broken_rules, overrides)


def load_model(name: str | Path) -> ModelSpec:
    """A model by its name in ``workloads/models`` or from a file. Raises SpecError."""
    return _load(ModelSpec, "models", _document("models", name), broken_model_rules)


def parse_run(text: str, file: str) -> RunSpec:
    """The run of a generated text; ``file`` is for messages and relative paths. Raises SpecError."""
    return _load(RunSpec, "runs", parse_yaml(text, file, numbered=False), broken_rules)


def parse_model(text: str, file: str) -> ModelSpec:
    """The model of a generated text; ``file`` is for messages. Raises SpecError."""
    return _load(ModelSpec, "models", parse_yaml(text, file, numbered=False), broken_model_rules)


def load_cluster(name: str | Path) -> ClusterSpec:
    """A cluster by its name, by a device whose default it is, or from a file. Raises SpecError."""
    return _load(ClusterSpec, "clusters", _document("clusters", name), broken_cluster_rules)


def load_device(name: str | Path) -> DeviceSpec:
    """A device by its name or alias, by a cluster that holds it, or from a file. Raises SpecError."""
    return _load(DeviceSpec, "devices", _document("devices", name))


def load_link(name: str | Path) -> LinkSpec:
    """A link by its name in ``hardware_profiles/links`` or from a file. Raises SpecError."""
    return _load(LinkSpec, "links", _document("links", name))


def _load(
    spec: type[T],
    kind: Kind,
    document: Node,
    rules: Callable[[T], list[Violation]] = lambda _: [],
    overrides: Iterable[str] = (),
) -> T:
    """The object, when nothing is wrong with its keys, and then nothing with the whole."""
    loaded, root, problems = _build(spec, kind, document, overrides)
    if loaded is None or problems:
        raise SpecError(*problems)
    violations = rules(loaded)
    if violations:
        raise SpecError(*(_placed(violation, root) for violation in violations))
    return loaded


def _document(kind: Kind, name: str | Path) -> Node:
    """The file of a path or of a name. A file that exists wins over a name."""
    path = Path(name)
    if isinstance(name, str) and not catalogue.is_path(name) and not path.is_file():
        return catalogue.read(kind, name, origin=Node(name))
    if not path.exists() and catalogue.ships(kind, path.stem):
        remedy = f"{path.stem}: that one ships and is found by its name"
        raise SpecError(Problem(file=str(path), rule="no such file", suggestion=remedy))
    root = read_yaml(path)
    if kind == "runs":
        expect(kind, root)
    return root


def _build(
    spec: type[T], kind: Kind, root: Node, overrides: Iterable[str] = ()
) -> tuple[T | None, Node, list[Problem]]:
    """The object, the resolved tree it came from, and every problem on the way."""
    problems: list[Problem] = []
    for text in overrides:
        try:
            root = set_value(root, kind, *parse_override(text))
        except SpecError as error:
            problems.extend(error.problems)
    leave_out_nulls(root, spec)
    root, unresolved = resolve(root, kind)
    unresolved += locate(root, kind)
    loaded, wrong = validate(spec, root)
    blamed = [problem.key_path for problem in unresolved]
    wrong = [problem for problem in wrong if not any(_within(problem.key_path, path) for path in blamed)]
    return loaded, root, [*problems, *unresolved, *wrong]


def _within(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(f"{ancestor}.") or ancestor.startswith(f"{path}.")


def _placed(violation: Violation, root: Node) -> Problem:
    """A broken rule with the place of the key it is about."""
    node = root.nearest(tuple(violation.key_path.split(".")))
    return node.problem(violation.key_path, violation.rule, violation.suggestion, value=violation.value)
