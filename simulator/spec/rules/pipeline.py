"""Rules of the pipeline: batches, stages and schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.errors import listed
from simulator.spec.rules.layout import replica_size
from simulator.spec.rules.violation import Violation, divisors, near_choices, near_divisors, near_multiples
from simulator.spec.run import AUTOMATIC, GPT_CONVENTIONS, RunSpec
from simulator.spec.stage_layout import parse_layout
from simulator.spec.stage_split import BALANCED, layer_counts

ONE_CHUNK = frozenset({"gpipe", "1f1b", "zb-h1", "zb-h2", "dualpipe", "pipedream", "pipedream-2bw"})
TWO_CHUNKS = frozenset({"zb-v", "v-min", "dualpipev"})  # down the devices and back up
MANY_CHUNKS = frozenset({"interleaved-1f1b", "interleaved-zb"})
ASYNCHRONOUS = frozenset({"pipedream", "pipedream-2bw"})
LEAST_ROUNDS = {"dualpipe": 2, "dualpipev": 2, "pipedream-2bw": 1}  # of pp microbatches


def global_batch(run: RunSpec) -> Iterator[Violation]:
    """The global batch is a whole number of microbatches on every replica."""
    if run.gpus % replica_size(run):
        return  # there is no dp to speak of
    batch, size = run.training.global_batch_size, run.training.micro_batch_size
    if batch % (size * run.dp):
        rule = f"must be a multiple of micro_batch_size·dp = {size}·{run.dp} = {size * run.dp}"
        yield Violation("training.global_batch_size", batch, rule, near_multiples(size * run.dp, batch))


def virtual_stages(run: RunSpec) -> Iterator[Violation]:
    """Virtual stages need a pipeline, and a schedule that knows them."""
    p = run.parallelism
    if p.vp > 1 and p.pp == 1:
        yield Violation("parallelism.vp", p.vp, "vp > 1 needs pp > 1", "1")
    if p.vp > 1 and run.schedule in ONE_CHUNK:
        rule = f"has one model chunk per rank, but vp is {p.vp}"
        yield Violation("parallelism.schedule", run.schedule, rule, "interleaved-1f1b, or vp: 1")
    if p.vp == 1 and run.schedule in MANY_CHUNKS:
        yield Violation("parallelism.schedule", run.schedule, "needs vp > 1", "1f1b, or vp: 2")
    if p.vp != 2 and run.schedule in TWO_CHUNKS:
        rule = f"has two model chunks per rank, in a V, but vp is {p.vp}"
        yield Violation("parallelism.schedule", run.schedule, rule, "vp: 2")


def chosen_schedule(run: RunSpec) -> Iterator[Violation]:
    """A limit of memory belongs to a schedule that is made for it, which needs a pipeline."""
    p = run.parallelism
    if p.stage_memory and p.schedule != AUTOMATIC:
        rule = "belongs to schedule automatic"
        yield Violation("parallelism.stage_memory", p.stage_memory, rule, "leave it out")
    if p.pp == 1 and (p.schedule == AUTOMATIC or p.schedule.endswith(".csv")):
        yield Violation("parallelism.schedule", p.schedule, "needs pp > 1", "leave it out")


def enough_microbatches(run: RunSpec) -> Iterator[Violation]:
    """Some schedules are defined from a number of microbatches on."""
    pp, batch = run.parallelism.pp, run.training.global_batch_size
    least = LEAST_ROUNDS.get(run.schedule, 0) * pp
    if run.gpus % replica_size(run) or any(global_batch(run)) or run.microbatches >= least:
        return
    step = run.training.micro_batch_size * run.dp
    rule = f"{run.schedule} needs at least {least} microbatches for pp {pp}, not {run.microbatches}"
    yield Violation("training.global_batch_size", batch, rule, str(least * step))


def two_copies(run: RunSpec) -> Iterator[Violation]:
    """DualPipe feeds half of the microbatches in at either end; each stage is on two devices.

    What is modelled of their gradients: reduced together, by all-reduce or by ZeRO-1.
    """
    p, batch = run.parallelism, run.training.global_batch_size
    if run.schedule != "dualpipe":
        return
    if p.pp % 2:
        yield Violation("parallelism.pp", p.pp, "dualpipe needs an even number of devices", str(p.pp + 1))
    if run.gpus % replica_size(run) == 0 and not any(global_batch(run)) and run.microbatches % 2:
        step = 2 * run.training.micro_batch_size * run.dp
        rule = f"dualpipe needs an even number of microbatches, not {run.microbatches}"
        yield Violation("training.global_batch_size", batch, rule, near_multiples(step, batch))
    if p.zero > 1:
        rule = "dualpipe, with two copies of each stage, is modelled with ZeRO 0 and 1"
        yield Violation("parallelism.zero", p.zero, rule, "1, or schedule: dualpipev")
    if p.shard_size:
        rule = "dualpipe, with two copies of each stage, shards over all of them"
        yield Violation("parallelism.shard_size", p.shard_size, rule, "leave it out")
    if p.offload.optimizer != "device":
        rule = "dualpipe, with two copies of each stage, is modelled with the optimizer on the device"
        yield Violation("parallelism.offload.optimizer", p.offload.optimizer, rule, "device")
    if run.runtime.overlap_p2p is False:
        rule = "dualpipe's messages of two directions run beside compute"
        yield Violation("runtime.overlap_p2p", False, rule, "true, or leave it out")


def asynchronous(run: RunSpec) -> Iterator[Violation]:
    """Where devices update on their own, replicas update whole; what else meets them is not modelled."""
    p, runtime = run.parallelism, run.runtime
    alone = run.schedule in ASYNCHRONOUS
    if not alone and not runtime.optimizer_post_validation:
        return
    who = run.schedule if alone else "optimizer_post_validation"
    if alone and p.zero and run.dp * p.cp > 1:
        rule = f"{who} updates whole replicas, each device on its own"
        yield Violation("parallelism.zero", p.zero, rule, "0")
    if alone and runtime.overlap_p2p is False:
        rule = f"messages of {who}, which never flushes, run beside compute"
        yield Violation("runtime.overlap_p2p", False, rule, "true, or leave it out")
    if alone and runtime.optimizer_post_validation:
        rule = f"validates the step of a schedule that flushes, which {who} does not"
        yield Violation("runtime.optimizer_post_validation", True, rule, "false")
    if not alone and (p.pp == 1 or run.schedule == "forward-only"):
        rule = "needs pp > 1 and an optimizer's step"
        yield Violation("runtime.optimizer_post_validation", True, rule, "false")
    if p.offload.optimizer != "device":
        rule = f"{who} is modelled with the optimizer on the device"
        yield Violation("parallelism.offload.optimizer", p.offload.optimizer, rule, "device")
    if run.jitter or run.noise.slow:
        rule = f"jitter and stragglers are not modelled with {who}, whose devices meet nowhere"
        yield Violation("noise", "given", rule, "leave it out")


def evaluation(run: RunSpec) -> Iterator[Violation]:
    """Forward passes alone have neither an optimizer nor activations to offload, nor GPT's training FLOPs."""
    p, t, asked = run.parallelism, run.training, run.simulation.flops_convention
    if run.schedule != "forward-only":
        return
    if p.offload.optimizer != "device":
        rule = "forward-only has no optimizer's step"
        yield Violation("parallelism.offload.optimizer", p.offload.optimizer, rule, "device")
    if t.activation_offload_layers:
        rule = "forward-only keeps no activations"
        yield Violation("training.activation_offload_layers", t.activation_offload_layers, rule, "0")
    if asked in GPT_CONVENTIONS:
        rule = "counts the FLOPs of training steps, not of forward passes alone"
        yield Violation("simulation.flops_convention", asked, rule, "megatron")


def interleaving(run: RunSpec) -> Iterator[Violation]:
    """Interleaved 1F1B runs groups of pp microbatches or more, the last one too (Megatron-LM's rule)."""
    p, batch = run.parallelism, run.training.global_batch_size
    group = p.microbatch_group_size
    if run.schedule != "interleaved-1f1b":
        if group:
            rule = f"belongs to interleaved-1f1b, not to {run.schedule}"
            yield Violation("parallelism.microbatch_group_size", group, rule, "leave it out")
        return
    if run.gpus % replica_size(run) or any(global_batch(run)):
        return
    m = run.microbatches
    if m < p.pp:
        least = run.training.micro_batch_size * run.dp * p.pp
        rule = f"{run.schedule} needs at least pp = {p.pp} microbatches, not {m}"
        yield Violation("training.global_batch_size", batch, rule, str(least))
    elif group and (not p.pp <= group <= m or 0 < m % group < p.pp):
        rule = f"must lie between pp = {p.pp} and the {m} microbatches, and leave none or at least {p.pp}"
        fits = [g for g in range(p.pp, m + 1) if m % g == 0 or m % g >= p.pp]
        yield Violation("parallelism.microbatch_group_size", group, rule, near_choices(fits, group))


def stage_split(run: RunSpec) -> Iterator[Violation]:
    """Every stage holds as many layers as the others, embedding and loss counted or not."""
    p, layers = run.parallelism, run.model.num_hidden_layers
    stages = p.pp * p.vp
    units = {"equal": layers, "embedding-and-loss-as-layers": layers + 2}
    if isinstance(p.stage_split, tuple) or p.stage_split not in units:
        yield from _uneven(run, stages)
        return
    counted = units[p.stage_split]
    if counted % stages == 0:
        return
    rule = (
        f"pp·vp = {p.pp}·{p.vp} = {stages} must divide the {counted} layers of {run.model.name}"
        f"{' (embedding and loss counted)' if counted != layers else ''} with stage_split {p.stage_split}"
    )
    remedies = [f"stage_split: {name}" for name, number in units.items() if number % stages == 0]
    if counted % p.pp:
        remedies.insert(0, f"pp·vp = {near_divisors(counted, stages)}")
        yield Violation("parallelism.pp", p.pp, rule, ", or ".join(remedies))
    else:
        remedies.insert(0, f"vp: {listed(divisors(counted // p.pp)[:8])}")
        yield Violation("parallelism.vp", p.vp, rule, ", or ".join(remedies))


def _uneven(run: RunSpec, stages: int) -> Iterator[Violation]:
    """Other splits have as many stages and layers as the run and its model."""
    split, model = run.parallelism.stage_split, run.model
    if split in ("even", BALANCED):
        ends = 2 if split == BALANCED else 0  # the embedding and the loss may have stages of their own
        if model.num_hidden_layers + ends < stages:
            rule = f"leaves stages empty: {model.num_hidden_layers} layers over {stages}"
            yield Violation("parallelism.stage_split", split, rule, "fewer stages")
    elif isinstance(split, str) and "|" in split:
        yield from _stage_layout(run, split, stages)
    else:
        try:
            layer_counts(model.num_hidden_layers, run.parallelism.pp, run.parallelism.vp, split)
        except ValueError as error:
            yield Violation("parallelism.stage_split", split, str(error), "even or balanced")


def _stage_layout(run: RunSpec, split: str, stages: int) -> Iterator[Violation]:
    """A layout has as many stages, layers and MTP layers as the run and its model."""
    found, model = parse_layout(split), run.model
    for what, number, wanted in (
        ("stages", len(found), stages),
        ("layers (t)", sum(stage.count("t") for stage in found), model.num_hidden_layers),
        ("MTP layers (m)", sum(stage.count("m") for stage in found), model.num_nextn_predict_layers),
    ):
        if number != wanted:
            rule = f"has {number} {what}; pp·vp and {model.name} need {wanted}"
            yield Violation("parallelism.stage_split", split, rule, f"{wanted} {what}")


PIPELINE_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    global_batch,
    virtual_stages,
    chosen_schedule,
    enough_microbatches,
    two_copies,
    asynchronous,
    evaluation,
    interleaving,
    stage_split,
)
