"""What would make a run fit: single changes of its settings, each simulated, the least slow first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeAlias

from simulator.memory.report import Verdict
from simulator.result import Result
from simulator.simulation import Simulation
from simulator.spec.recompute import Recompute
from simulator.spec.rules import broken_rules
from simulator.spec.run import Parallelism, RunSpec, Training

MOST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Settings by key path as a run file has them, and what they give. Bytes and seconds."""

    settings: dict[str, object]
    step_time_s: float
    peak_bytes: float
    verdict: Verdict

    def to_dict(self) -> dict[str, object]:
        """The stable JSON form."""
        return {
            "settings": self.settings,
            "step_time_s": self.step_time_s,
            "peak_bytes": self.peak_bytes,
            "verdict": self.verdict,
        }


class _Change:
    """One change: its settings by key path, and the run with it."""

    def __init__(self, section: str, **values: object) -> None:
        self.section, self.values = section, values

    @property
    def settings(self) -> dict[str, object]:
        """By key path."""
        return {
            f"{self.section}.{key}": _plain(value)
            for key, value in self.values.items()
            if (key, value) != ("dp", 0)
        }

    def applied(self, run: RunSpec) -> RunSpec:
        """The run with it."""
        part = replace(getattr(run, self.section), **self.values)
        return replace(run, **{self.section: part})


_Candidate: TypeAlias = tuple[Simulation, tuple[_Change, ...]]


def remedies(run: RunSpec, most: int = MOST) -> list[Remedy]:
    """The ``most`` cheapest changes after which a run fits, by step time.

    Recompute, a smaller micro batch, a higher ZeRO stage, more pipeline or tensor parallelism and offload are
    tried one by one, and in pairs where none of them is enough; no recompute deeper than it takes. Where
    nothing fits for sure, changes that may fit are given.
    """
    singles = list(_changes(run))
    for size in (1, 2):
        found: list[_Candidate] = [
            (simulation, changes)
            for changes in combinations(singles, size)
            if (changed := _applied(run, changes)) is not None
            and (simulation := _prepared(changed)) is not None
            and simulation.memory.verdict != "does not fit"
        ]
        sure = [candidate for candidate in found if candidate[0].memory.verdict == "fits"]
        if found:
            return _timed(_least_recompute(sure or found), run.parallelism.dp, most)
    return []


def with_remedies(result: Result, run: RunSpec) -> Result:
    """The result with what would make its run fit, in ``memory["remedies"]``."""
    found = [remedy.to_dict() for remedy in remedies(run)]
    return replace(result, memory={**result.memory, "remedies": found})


def _changes(run: RunSpec) -> Iterator[_Change]:
    yield from _recompute(run.training)
    size = run.training.micro_batch_size // 2
    while size:
        yield _Change("training", micro_batch_size=size)
        size //= 2
    for stage in range(run.parallelism.zero + 1, 4):
        yield _Change("parallelism", zero=stage)
    yield from _more_parallel(run.parallelism)
    layers = run.model.num_hidden_layers // (run.parallelism.pp * run.parallelism.vp)
    if run.training.activation_offload_layers < layers:
        yield _Change("training", activation_offload_layers=layers)


def _recompute(training: Training) -> Iterator[_Change]:
    """Deeper levels than the run's own."""
    if training.recompute.granularity == "none":
        for modules in (
            ("core_attn",),
            ("layernorm",),
            ("layernorm", "mlp"),
            ("core_attn", "layernorm", "mlp"),
        ):
            yield _Change("training", recompute=Recompute(granularity="selective", modules=modules))
    if training.recompute.granularity != "full":
        yield _Change("training", recompute=Recompute(granularity="full", modules=()))


def _more_parallel(p: Parallelism) -> Iterator[_Change]:
    yield _Change("parallelism", tp=2 * p.tp, dp=0)
    yield _Change("parallelism", pp=2 * p.pp, dp=0)
    if p.vp > 1:
        yield _Change("parallelism", vp=1, schedule="1f1b")


def _applied(run: RunSpec, changes: tuple[_Change, ...]) -> RunSpec | None:
    """The run with all changes, where they touch different keys and keep to the rules."""
    keys = [key for change in changes for key in change.settings]
    if len(keys) != len(set(keys)):
        return None
    for change in changes:
        run = change.applied(run)
    return None if broken_rules(run) else run


def _prepared(run: RunSpec) -> Simulation | None:
    """The simulation, with the memory it takes, which needs no replay."""
    try:
        simulation = Simulation(run)
        _ = simulation.memory
    except ValueError:  # a split that no rule foresaw
        return None
    return simulation


def _least_recompute(candidates: list[_Candidate]) -> Iterator[_Candidate]:
    """Those that recompute no more than another one which is the same otherwise: that costs time only."""
    runs = [simulation.run for simulation, _ in candidates]
    for candidate, run in zip(candidates, runs, strict=True):
        mine = run.training.recompute
        if not any(
            _is_less(other.training.recompute, mine) and _with_recompute(other, mine) == run for other in runs
        ):
            yield candidate


def _is_less(some: Recompute, more: Recompute) -> bool:
    if more.granularity == "full":
        return some.granularity == "selective"
    return set(some.modules) < set(more.modules)


def _with_recompute(run: RunSpec, recompute: Recompute) -> RunSpec:
    return replace(run, training=replace(run.training, recompute=recompute))


def _timed(candidates: Iterable[_Candidate], stated_dp: int, most: int) -> list[Remedy]:
    """Simulated. Where a run file states ``dp``, a change of it is one of the settings."""
    found = []
    for simulation, changes in candidates:
        try:
            seconds = simulation.step.seconds
        except ValueError:
            continue
        settings = {key: value for change in changes for key, value in change.settings.items()}
        if stated_dp and simulation.run.dp != stated_dp:
            settings["parallelism.dp"] = simulation.run.dp
        memory = simulation.memory
        found.append(
            Remedy(
                settings=settings,
                step_time_s=seconds,
                peak_bytes=memory.peak_bytes,
                verdict=memory.verdict,
            )
        )
    return sorted(found, key=lambda remedy: remedy.step_time_s)[:most]


def _plain(value: object) -> object:
    """A value as a run file has it."""
    if not isinstance(value, Recompute):
        return value
    modules = {"modules": list(value.modules)} if value.granularity == "selective" else {}
    return {"granularity": value.granularity, **modules}
