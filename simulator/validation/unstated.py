"""What a row leaves open: the layout that its software takes, and the savings that memory decides.

A row of less than high confidence may lack its microbatch or its virtual stages: what its generation of
software does by default is assumed, else single sequences and single chunks.

A run that ran did fit. A table that names neither recompute nor offload usually had neither. Where such a run
is judged not to fit, it had something: the setting with which it fits and runs fastest, as whoever tuned it
would choose. The measured time has no say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simulator.simulate import simulate, simulate_memory
from simulator.spec.recompute import Recompute
from simulator.spec.rules import broken_rules
from simulator.spec.run import RunSpec, Training
from simulator.validation.published import PublishedRun
from simulator.validation.software import generation_of

DOES_NOT_FIT = "does not fit"


def with_unstated_layout(row: PublishedRun) -> tuple[PublishedRun, str]:
    """The row with its microbatch and its virtual stages, and in words which are assumed ("": none)."""
    layout, assumed = row.layout, list[str]()
    if row.identity.confidence == "high" or not layout.tp or not layout.pp:
        return row, ""
    if not layout.micro_batch_size and layout.global_batch_size:
        size = _micro_batch(row, layout.global_batch_size, layout.tp * layout.pp * (layout.cp or 1))
        layout = replace(layout, micro_batch_size=size)
        assumed.append(f"micro_batch_size {size}")
    if layout.pp and layout.pp > 1 and not layout.vp:
        chunks = 2 if layout.schedule.startswith("interleaved") else 1
        layout = replace(layout, vp=chunks)
        assumed.append(f"vp {chunks}")
    words = f"{' and '.join(assumed)} assumed: not published" if assumed else ""
    return replace(row, layout=layout), words


def _micro_batch(row: PublishedRun, batch: int, replica: int) -> int:
    """Sequences of a microbatch where the software cuts a replica's batch by a rule of its own; else 1."""
    per_replica = batch * replica // row.machine.gpus
    cut = generation_of(row.identity.software).microbatches_as_stages
    return max(1, per_replica // (row.layout.pp or 1)) if cut else 1


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
