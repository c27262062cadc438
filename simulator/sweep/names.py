"""What an expression may name: every key of a run by its path, most by their last word, and a few sums.

``tp`` is ``parallelism.tp``; ``num_hidden_layers`` is ``model.num_hidden_layers``. Names of results, such as
``peak_bytes``, are those of ``stepcast run --json``; they exist once a layout has been evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Final, TypeAlias, get_type_hints

from simulator.spec.errors import nearest
from simulator.spec.run import RunSpec
from simulator.spec.schema import bare
from simulator.sweep.expression import Expression, ExpressionError

Path: TypeAlias = tuple[str, ...]

# Where two keys end in the same word, the first of these sections has it.
_SECTIONS: Final = ("parallelism", "training", "runtime", "model", "cluster")
_TEXTS: Final = frozenset({"name", "title", "notes", "source", "sources", "description", "aliases"})

RESULT_NAMES: Final = (
    *("step_time_s", "tokens_per_s", "tokens_per_s_per_gpu", "model_tflops_per_gpu", "mfu", "hfu"),
    *("bubble_fraction", "peak_bytes", "capacity_bytes"),
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name, the keys it depends on, and how to read it off a run."""

    paths: tuple[Path, ...]
    get: Callable[[RunSpec], Any]


def known_names() -> dict[str, Name]:
    """Every name a run gives a value to."""
    return _names()


def find_name(name: str) -> Name:
    """Raises ExpressionError, with the nearest names, for one that does not exist."""
    found = _names().get(name)
    if found is None:
        close = nearest(name, [*_names(), *RESULT_NAMES], few=0)
        raise ExpressionError(f"no name {name!r}" + (f"; the nearest are {close}" if close else ""))
    return found


def dependencies(expression: Expression) -> set[Path]:
    """The keys an expression depends on."""
    return {path for name in expression.names if name not in RESULT_NAMES for path in find_name(name).paths}


def needs_result(expression: Expression) -> bool:
    """Whether an expression can be computed only after the evaluation."""
    return any(name in RESULT_NAMES for name in expression.names)


def value_for(expression: Expression, run: RunSpec, results: Mapping[str, Any] | None = None) -> Any:
    """The value of an expression for a run and, where it names some, its results. Raises ExpressionError."""
    names, found = _names(), results or {}
    return expression.value(lambda name: found[name] if name in found else names[name].get(run))


@cache
def _names() -> dict[str, Name]:
    found = {".".join(path): Name((path,), attrgetter(".".join(path))) for path in _leaves(RunSpec, ())}
    short: dict[str, Name] = {}
    for section in _SECTIONS:
        for dotted, name in found.items():
            first, _, _ = dotted.partition(".")
            last = dotted.rpartition(".")[2]
            if first == section and last not in _TEXTS:
                short.setdefault(last, name)
    return {**short, **found, **_sums()}


def _leaves(spec: type[Any], above: Path) -> Iterator[Path]:
    """Key paths of single values."""
    hints = get_type_hints(spec, include_extras=True)
    for field in fields(spec):
        inner, path = bare(hints[field.name]), (*above, field.name)
        if is_dataclass(inner) and isinstance(inner, type):
            if field.name != "published":
                yield from _leaves(inner, path)
        else:
            yield path


def _sums() -> dict[str, Name]:
    p = "parallelism"
    replica: tuple[Path, ...] = (("gpus",), (p, "tp"), (p, "pp"), (p, "cp"))
    batch: tuple[Path, ...] = (("training", "global_batch_size"), ("training", "micro_batch_size"))
    return {
        "world_size": Name((("gpus",),), attrgetter("gpus")),
        "dp": Name(replica, attrgetter("dp")),
        "microbatches": Name((*replica, *batch), attrgetter("microbatches")),
        "schedule": Name(((p, "schedule"), (p, "vp")), attrgetter("schedule")),
        "nodes": Name(
            (("gpus",), ("cluster", "gpus_per_node")), lambda run: run.gpus / run.cluster.gpus_per_node
        ),
    }
