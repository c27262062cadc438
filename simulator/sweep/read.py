"""From a sweep file to a space of runs and the settings of the search."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path as FilePath
from typing import Any, Final

from simulator.spec import catalogue
from simulator.spec.errors import Problem, SpecError, nearest
from simulator.spec.fields import Text
from simulator.spec.kinds import RUN_OF_SWEEP, expect
from simulator.spec.located import locate
from simulator.spec.overrides import leave_out_nulls, parse_override, set_value
from simulator.spec.references import resolve, resolve_one
from simulator.spec.rules import broken_cluster_rules, broken_model_rules
from simulator.spec.run import RunSpec
from simulator.spec.schema import keys_at, validate
from simulator.spec.yaml_loader import Node, read_yaml
from simulator.sweep.axes import AxisNode, find_axes
from simulator.sweep.choices import Axis, Choice, Constraint
from simulator.sweep.expression import Expression, ExpressionError, parse_expression
from simulator.sweep.names import Path, dependencies, needs_result
from simulator.sweep.objective import Objective
from simulator.sweep.settings import Settings
from simulator.sweep.space import Space, refuse_too_many

RUN, CONSTRAINTS = RUN_OF_SWEEP, "constraints"
SETTINGS: Final = keys_at(Settings, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document(Settings):
    """Every key of a sweep file."""

    run: RunSpec
    constraints: dict[str, Text] = field(default_factory=dict)


KEYS: Final = keys_at(_Document, ())
LARGE: Final = 500  # combinations


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A sweep file, read and checked. ``fingerprint`` tells the spaces and prices of sweeps apart."""

    file: str
    settings: Settings
    space: Space
    after: tuple[Constraint, ...]  # constraints on results: layouts that break one are infeasible
    document: Mapping[str, Any]  # the run as written, with the first value of every axis
    fingerprint: str

    @property
    def name(self) -> str:
        """The sweep's own, or its file's."""
        return self.settings.name or FilePath(self.file).stem

    @property
    def is_large(self) -> bool:
        """Whether so many layouts have to be looked at that it is worth while to start processes."""
        return prod(self.space.sizes.values()) >= LARGE

    @property
    def objective(self) -> Objective:
        """How layouts are ranked."""
        return Objective(self.settings.objective, self.settings.cost)


def read_sweep(path: str | FilePath, overrides: Iterable[str] = ()) -> Sweep:
    """A sweep file, or a sweep that ships by its name.

    Args:
        path: a YAML file, or a name in ``workloads/sweeps``.
        overrides: ``key.path=value`` each; the first word is a key of the sweep file or of its run.

    Raises:
        SpecError: everything that is wrong with the file, the files it names and the overrides.
    """
    root = _document(path)
    expect("sweeps", root)
    root = _overridden(root, overrides)
    mapping: dict[str, Node] = root.value  # type: ignore[assignment]  # read_yaml gives a mapping
    unknown = [
        node.problem(
            key,
            f"unknown key; a sweep file has {', '.join(KEYS)}",
            f"{RUN}.{key}" if key in keys_at(RunSpec, ()) else nearest(key, KEYS, few=0),
            value=node.plain(),
        )
        for key, node in mapping.items()
        if key not in KEYS
    ]
    if unknown:
        raise SpecError(*unknown)
    if RUN not in mapping or mapping[RUN].value is None:
        raise SpecError(root.problem(RUN, "this key is required: the keys of a run file, or a run's name"))
    own = Node({key: mapping[key] for key in SETTINGS if key in mapping}, root.file, root.line)
    settings, problems = validate(Settings, own)
    if settings is None:
        raise SpecError(*problems)
    before, after = _constraints(mapping.get(CONSTRAINTS))
    document, base, axes = _run(mapping[RUN])
    space = Space(base=base, axes=axes, constraints=before)
    return Sweep(
        file=root.file,
        settings=settings,
        space=space,
        after=after,
        document=document,
        fingerprint=_fingerprint(settings, space, after),
    )


def _document(path: str | FilePath) -> Node:
    name = str(path)
    if catalogue.is_path(name) or FilePath(path).is_file():
        return read_yaml(FilePath(path))
    return catalogue.read("sweeps", name, origin=Node(name))


def _overridden(root: Node, overrides: Iterable[str]) -> Node:
    """``search=best``, ``cost.tokens=1e12``, ``run.gpus=512`` or, for short, ``gpus=512``."""
    mapping: dict[str, Node] = root.value  # type: ignore[assignment]
    for text in overrides:
        path, value = parse_override(text)
        if path[0] not in KEYS and path[0] in keys_at(RunSpec, ()):
            path = (RUN, *path)
        if path[0] == RUN and len(path) > 1:
            run = mapping.get(RUN, Node({}))
            mapping[RUN] = set_value(run, "runs", path[1:], value)
        else:
            root = set_value(root, "sweeps", path, value)
    leave_out_nulls(root, _Document)
    return root


def _constraints(node: Node | None) -> tuple[tuple[Constraint, ...], tuple[Constraint, ...]]:
    """Those on layouts and those on results."""
    if node is None:
        return (), ()
    if not isinstance(node.value, dict):
        example = "same_node: tp <= gpus_per_node"
        raise SpecError(node.problem(CONSTRAINTS, "must be a mapping of names to conditions", example))
    before: list[Constraint] = []
    after: list[Constraint] = []
    problems: list[Problem] = []
    for name, condition in node.value.items():
        try:
            if not isinstance(condition.value, str):
                raise ExpressionError("must be a condition in text, such as tp <= gpus_per_node")
            expression = parse_expression(condition.value)
            dependencies(expression)
            (after if needs_result(expression) else before).append(Constraint(name, expression))
        except ExpressionError as error:
            problems.append(condition.problem(f"{CONSTRAINTS}.{name}", str(error), value=condition.plain()))
    if problems:
        raise SpecError(*problems)
    return tuple(before), tuple(after)


def _run(node: Node) -> tuple[dict[str, Any], RunSpec, tuple[Axis, ...]]:
    """The run with one value for each key, as written and as an object, and the axes."""
    found, problems = find_axes(resolve_one(node, "runs", ()))
    if problems:
        raise SpecError(*(replace(problem, key_path=f"{RUN}.{problem.key_path}") for problem in problems))
    refuse_too_many({".".join(axis.path): len(axis.items) for axis in found.axes})
    document = found.root.plain()
    root, unresolved = resolve(found.root, "runs")
    base = _valid(root, unresolved)
    axes = [_axis(axis, root) for axis in found.axes]
    _check_model_and_cluster(base, axes)
    return document, base, _ordered(axes)


def _valid(root: Node, unresolved: list[Problem]) -> RunSpec:
    """Raises SpecError with the key paths of the sweep file."""
    unresolved = [*unresolved, *locate(root, "runs")]
    run, wrong = (None, []) if unresolved else validate(RunSpec, root)
    if run is None:
        raise SpecError(*(_below_run(problem) for problem in [*unresolved, *wrong]))
    return run


def _below_run(problem: Problem) -> Problem:
    return replace(problem, key_path=f"{RUN}.{problem.key_path}") if problem.key_path else problem


def _axis(axis: AxisNode, root: Node) -> Axis:
    """Every written value put into the run once, so that the same messages come out as for a run file."""
    choices: list[Choice | Expression] = []
    for item in axis.items:
        if isinstance(item, Expression):
            choices.append(item)
            continue
        run = _valid(*resolve(_with_node(root, axis.path, item), "runs"))
        value: Any = run
        for key in axis.path:
            value = getattr(value, key)
        choices.append(Choice(item.plain(), value, item.plain()))
    return Axis(path=axis.path, choices=_named(choices), accepts=axis.accepts)


def _named(choices: list[Choice | Expression]) -> tuple[Choice | Expression, ...]:
    """Models and clusters by their names, where these tell them apart."""
    names = [getattr(choice.value, "name", None) for choice in choices if isinstance(choice, Choice)]
    if None in names or len(set(names)) < len(choices):
        return tuple(choices)
    return tuple(replace(c, label=c.value.name) for c in choices if isinstance(c, Choice))


def _with_node(root: Node, path: Path, value: Node) -> Node:
    """A document with another value at a key path, sharing the rest."""
    mapping: dict[str, Node] = dict(root.value)  # type: ignore[arg-type]
    key, rest = path[0], path[1:]
    mapping[key] = _with_node(mapping[key], rest, value) if rest else value
    return Node(mapping, root.file, root.line)


def _check_model_and_cluster(base: RunSpec, axes: list[Axis]) -> None:
    """The rules that concern a model or a cluster alone, once for each."""
    models, clusters = [base.model], [base.cluster]
    for axis in axes:
        values = [choice.value for choice in axis.choices if isinstance(choice, Choice)]
        models += values if axis.path == ("model",) else []
        clusters += values if axis.path == ("cluster",) else []
    broken = [("model", v) for model in models for v in broken_model_rules(model)]
    broken += [("cluster", v) for cluster in clusters for v in broken_cluster_rules(cluster)]
    if broken:
        raise SpecError(
            *(
                Problem(
                    key_path=f"{RUN}.{at}.{v.key_path}", value=v.value, rule=v.rule, suggestion=v.suggestion
                )
                for at, v in broken
            )
        )


def _ordered(axes: list[Axis]) -> tuple[Axis, ...]:
    """File order, but an axis after those its expressions name, and after a section it is part of."""
    graph: dict[int, set[int]] = {index: set() for index in range(len(axes))}
    for index, axis in enumerate(axes):
        needs = {
            path for choice in axis.choices if isinstance(choice, Expression) for path in dependencies(choice)
        }
        if any(_overlap(path, axis.path) for path in needs):
            raise SpecError(
                Problem(key_path=f"{RUN}.{axis.key}", rule="an expression that needs its own value")
            )
        for other, before in enumerate(axes):
            if other != index and (
                any(_overlap(path, before.path) for path in needs)
                or axis.path[: len(before.path)] == before.path
            ):
                graph[index].add(other)
    try:
        order = TopologicalSorter(graph)
        order.prepare()
    except CycleError as error:
        ring = " → ".join(axes[index].key for index in error.args[1])
        rule = f"expressions that need each other: {ring}"
        raise SpecError(Problem(key_path=RUN, rule=rule, suggestion="give one of them as numbers")) from None
    placed: list[int] = []
    while len(placed) < len(axes):
        placed.append(next(i for i in graph if i not in placed and graph[i] <= set(placed)))
    return tuple(axes[index] for index in placed)


def _overlap(a: Path, b: Path) -> bool:
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]


def _fingerprint(settings: Settings, space: Space, after: tuple[Constraint, ...]) -> str:
    """Of all that decides which layouts there are and how they rank; the way to search does not."""
    axes = [
        [axis.key, [c.text if isinstance(c, Expression) else [c.label, repr(c.value)] for c in axis.choices]]
        for axis in space.axes
    ]
    conditions = [[c.name, c.condition.text] for c in (*space.constraints, *after)]
    ranked = [settings.objective, repr(settings.cost)]
    content = json.dumps([repr(space.base), axes, conditions, ranked], default=str)
    return hashlib.sha256(content.encode()).hexdigest()
