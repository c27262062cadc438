"""What a row leaves open and memory decides: a run that ran did fit.

A table that names neither recompute nor offload usually had neither. Where such a run is judged not to fit,
it had something: the setting with which it fits and runs fastest, as whoever tuned it would choose. The
measured time has no say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simulator.simulate import simulate, simulate_memory
from simulator.spec.rules import broken_rules
from simulator.spec.run import Recompute, RunSpec, Training
from simulator.validation.published import PublishedRun

DOES_NOT_FIT = "does not fit"


def with_unstated_savings(row: PublishedRun, run: RunSpec) -> tuple[RunSpec, str]:
    """The run, with what it must have saved of its activations, and that in words ("": nothing assumed)."""
    recipe = row.recipe
    if recipe.recompute or recipe.offload_layers is not None or recipe.offload_modules or _fits(run):
        return run, ""
    changed = (replace(run, training=training) for training in _savings(run))
    fitting = [one for one in changed if not broken_rules(one) and _fits(one)]
    if not fitting:
        return run, ""
    fastest = min(fitting, key=lambda one: simulate(one).step_time_s)
    return fastest, f"{_words(fastest.training)} assumed: without it the run does not fit"


def _fits(run: RunSpec) -> bool:
    return simulate_memory(run).verdict != DOES_NOT_FIT


def _savings(run: RunSpec) -> Iterator[Training]:
    """Activations of ever more layers on the host, then recompute from parts of a layer to all of it."""
    layers = run.model.num_hidden_layers // (run.parallelism.pp * run.parallelism.vp)
    for quarter in (1, 2, 3, 4):
        if offloaded := layers * quarter // 4:
            yield replace(run.training, activation_offload_layers=offloaded)
    widest = "moe_act" if run.model.is_moe else "mlp"
    for modules in (("layernorm",), (widest,), ("layernorm", widest)):
        yield replace(run.training, recompute=Recompute(granularity="selective", modules=modules))
    yield replace(run.training, recompute=Recompute(granularity="full"))


def _words(training: Training) -> str:
    if training.activation_offload_layers:
        return f"activations of {training.activation_offload_layers} layers of each chunk on the host"
    modules = ", ".join(training.recompute.modules) if training.recompute.granularity == "selective" else ""
    return f"recompute {training.recompute.granularity} {modules}".rstrip()
