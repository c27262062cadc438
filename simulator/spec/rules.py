"""The layout rules: what makes a run impossible, each rule a small function that names the nearest valid choice.

A rule is a generator over a :class:`RunSpec` whose fields are each valid on their own. All are run, so that a user
sees every broken one; a sweep counts illegal layouts by ``Violation.name``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from simulator.spec.errors import listed
from simulator.spec.model import ModelSpec
from simulator.spec.not_modelled import NOT_MODELLED
from simulator.spec.run import RunSpec


class Violation(NamedTuple):
    """A broken rule: the rule's short name, the key to change, its value, the rule in words, and what would do."""

    name: str
    key_path: str
    value: object
    rule: str
    suggestion: str = ""


Rule: TypeAlias = Callable[[RunSpec], Iterator[Violation]]

# A device runs these formats at the rate of the key on the right.
PEAK_KEY = {"mxfp8": "fp8", "nvfp4": "fp4"}


def broken_rules(run: RunSpec) -> list[Violation]:
    """Every rule that a run breaks, and everything in it that is not modelled yet."""
    broken = [violation for rule in RULES for violation in rule(run)]
    unsupported = [
        Violation("not modelled", key, value, f"not modelled: {what}", remedy)
        for key, value, what, remedy in (case for find in NOT_MODELLED for case in find(run))
    ]
    return [*broken, *unsupported]


def model_rules(model: ModelSpec) -> list[Violation]:
    """Every rule that a model breaks whatever it runs on."""
    return [violation for rule in (attention_shape, experts_shape, latent_shape) for violation in rule(model)]


def attention_shape(model: ModelSpec) -> Iterator[Violation]:
    """Heads share the hidden size, and key-value heads are shared by whole groups of query heads."""
    heads, kv = model.num_attention_heads, model.num_key_value_heads
    derived = model.head_dim == model.hidden_size // heads
    if derived and model.hidden_size % heads:
        yield Violation(
            "head_dim",
            "model.num_attention_heads",
            heads,
            f"hidden_size ({model.hidden_size}) must be a multiple of num_attention_heads where head_dim is not given",
            near_divisors(model.hidden_size, heads),
        )
    if heads % kv:
        yield Violation(
            "kv_heads",
            "model.num_key_value_heads",
            kv,
            f"num_attention_heads ({heads}) must be a multiple of num_key_value_heads",
            near_divisors(heads, kv),
        )


def experts_shape(model: ModelSpec) -> Iterator[Violation]:
    """A token goes to some of the experts, and experts have a width."""
    if model.num_experts_per_tok > model.num_experts:
        yield Violation(
            "experts_per_token",
            "model.num_experts_per_tok",
            model.num_experts_per_tok,
            f"must be at most num_experts ({model.num_experts})",
            f"num_experts: {model.num_experts_per_tok} or more"
            if not model.num_experts
            else str(model.num_experts),
        )
    if model.is_moe and not model.num_experts_per_tok:
        yield Violation(
            "experts_per_token",
            "model.num_experts_per_tok",
            0,
            "a model with experts must send a token to some",
            "2",
        )
    if model.is_moe and not model.moe_intermediate_size:
        yield Violation(
            "expert_width",
            "model.moe_intermediate_size",
            0,
            "a model with experts must say how wide they are",
            f"intermediate_size is {model.intermediate_size}",
        )
    if model.first_k_dense_replace > model.num_hidden_layers:
        yield Violation(
            "dense_layers",
            "model.first_k_dense_replace",
            model.first_k_dense_replace,
            f"must be at most num_hidden_layers ({model.num_hidden_layers})",
        )


def latent_shape(model: ModelSpec) -> Iterator[Violation]:
    """Multi-head latent attention needs its ranks and head sizes."""
    if model.attention_type != "mla":
        return
    for key in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        if not getattr(model, key):
            yield Violation("mla", f"model.{key}", 0, "attention_type mla needs this size")


def model_shape(run: RunSpec) -> Iterator[Violation]:
    """The model is possible by itself."""
    yield from model_rules(run.model)


def world_size(run: RunSpec) -> Iterator[Violation]:
    """gpus = tp · pp · cp · dp."""
    p = run.parallelism
    replica = _replica(run)
    if run.gpus % replica:
        yield Violation(
            "world_size",
            "gpus",
            run.gpus,
            f"must be a multiple of tp·pp·cp = {p.tp}·{p.pp}·{p.cp} = {replica}",
            near_multiples(replica, run.gpus),
        )
    elif p.dp and p.dp != run.gpus // replica:
        yield Violation(
            "world_size",
            "parallelism.dp",
            p.dp,
            f"must equal gpus / (tp·pp·cp) = {run.gpus} / {replica}",
            f"{run.gpus // replica}, or leave dp out",
        )


def whole_nodes(run: RunSpec) -> Iterator[Violation]:
    """A job larger than a node takes whole nodes."""
    per_node = run.cluster.gpus_per_node
    if run.gpus > per_node and run.gpus % per_node:
        yield Violation(
            "whole_nodes",
            "gpus",
            run.gpus,
            f"must be a multiple of the {per_node} GPUs of a node of {run.cluster.name}",
            near_multiples(per_node, run.gpus),
        )


def cluster_size(run: RunSpec) -> Iterator[Violation]:
    """The cluster has that many GPUs."""
    most = run.cluster.max_gpus
    if most and run.gpus > most:
        yield Violation("cluster_size", "gpus", run.gpus, f"{run.cluster.name} has {most} GPUs", str(most))


def tensor_parallel(run: RunSpec) -> Iterator[Violation]:
    """TP splits attention heads and the MLP's width evenly; key-value heads evenly or by copies."""
    tp, model = run.parallelism.tp, run.model
    splits = [("num_attention_heads", model.num_attention_heads)]
    if not model.is_moe or model.first_k_dense_replace or model.moe_layer_freq > 1:
        splits.append(("intermediate_size", model.intermediate_size))
    for key, size in splits:
        if size % tp:
            rule = f"{key} ({size}) of {model.name} must be a multiple of tp"
            yield Violation("tensor_parallel", "parallelism.tp", tp, rule, near_divisors(size, tp))
    kv = model.num_key_value_heads
    if kv % tp and tp % kv:
        yield Violation(
            "tensor_parallel",
            "parallelism.tp",
            tp,
            f"tp must divide num_key_value_heads ({kv}) of {model.name}, or be a multiple of it",
            listed(_nearest([*_divisors(kv), *range(kv, 8 * kv + 1, kv)], tp)),
        )


def sequence_parallel(run: RunSpec) -> Iterator[Violation]:
    """Sequence parallelism splits each rank's share of the sequence over the TP group."""
    p, tokens = run.parallelism, run.training.seq_length
    if p.sequence_parallel and p.tp == 1:
        yield Violation(
            "sequence_parallel",
            "parallelism.sequence_parallel",
            True,
            "needs tp > 1",
            "false, or leave it out",
        )
    if run.sequence_parallel and tokens % (p.cp * p.tp):
        yield Violation(
            "sequence_parallel",
            "training.seq_length",
            tokens,
            f"must be a multiple of cp·tp = {p.cp}·{p.tp} = {p.cp * p.tp} with sequence parallelism",
            near_multiples(p.cp * p.tp, tokens),
        )


def context_parallel(run: RunSpec) -> Iterator[Violation]:
    """Causal balance gives every rank one early and one late slice: 2 · cp slices."""
    cp, tokens = run.parallelism.cp, run.training.seq_length
    if cp > 1 and tokens % (2 * cp):
        yield Violation(
            "context_parallel",
            "training.seq_length",
            tokens,
            f"must be a multiple of 2·cp = {2 * cp}: causal load balance cuts the sequence into 2·cp slices",
            near_multiples(2 * cp, tokens),
        )


def learned_positions(run: RunSpec) -> Iterator[Violation]:
    """A table of position embeddings has an entry for every position."""
    model, tokens = run.model, run.training.seq_length
    if model.position_embedding == "learned" and 0 < model.max_position_embeddings < tokens:
        yield Violation(
            "learned_positions",
            "training.seq_length",
            tokens,
            f"{model.name} has {model.max_position_embeddings} learned position embeddings",
            f"{model.max_position_embeddings}, or a larger model.max_position_embeddings",
        )


def expert_parallel(run: RunSpec) -> Iterator[Violation]:
    """EP divides the experts, ETP their width, and both fold into the ranks of a stage."""
    p, model = run.parallelism, run.model
    if not model.is_moe:
        for key, value, off in (("ep", p.ep, 1), ("etp", p.etp, 0)):
            if value > 1:
                rule = f"{model.name} has no experts"
                yield Violation(
                    "expert_parallel", f"parallelism.{key}", value, rule, f"{off}, or leave it out"
                )
        return
    etp = p.etp or p.tp
    if model.num_experts % p.ep:
        rule = f"num_experts ({model.num_experts}) of {model.name} must be a multiple of ep"
        yield Violation(
            "expert_parallel", "parallelism.ep", p.ep, rule, near_divisors(model.num_experts, p.ep)
        )
    if model.moe_intermediate_size % etp:
        rule = (
            f"moe_intermediate_size ({model.moe_intermediate_size}) of {model.name} must be a multiple of etp"
        )
        near = near_divisors(model.moe_intermediate_size, etp)
        yield Violation("expert_parallel", "parallelism.etp", etp, rule, near)
    stage = run.gpus // p.pp
    if run.gpus % p.pp == 0 and stage % (p.ep * etp):
        rule = f"the {stage} ranks of a pipeline stage must be a multiple of ep·etp = {p.ep}·{etp} = {p.ep * etp}"
        near = near_divisors(stage // etp, p.ep) if stage % etp == 0 else ""
        yield Violation("expert_parallel", "parallelism.ep", p.ep, rule, near)
    if p.tp > 1 and p.sequence_parallel is False:
        rule = "a model with experts needs sequence parallelism when tp > 1 (each token must be routed once)"
        yield Violation("expert_parallel", "parallelism.sequence_parallel", False, rule, "true")


def global_batch(run: RunSpec) -> Iterator[Violation]:
    """The global batch is a whole number of microbatches on every replica."""
    if run.gpus % _replica(run):
        return
    batch, mbs = run.training.global_batch_size, run.training.micro_batch_size
    step = mbs * run.dp
    if batch % step:
        yield Violation(
            "global_batch",
            "training.global_batch_size",
            batch,
            f"must be a multiple of micro_batch_size·dp = {mbs}·{run.dp} = {step}",
            near_multiples(step, batch),
        )


def virtual_stages(run: RunSpec) -> Iterator[Violation]:
    """Virtual stages need a pipeline and a schedule that knows them."""
    p = run.parallelism
    if p.vp > 1 and p.pp == 1:
        yield Violation("virtual_stages", "parallelism.vp", p.vp, "vp > 1 needs pp > 1", "1")
    if p.vp > 1 and run.schedule in {
        "1f1b",
        "gpipe",
        "zb-h1",
        "zb-h2",
        "dualpipe",
        "pipedream",
        "pipedream-2bw",
    }:
        rule = f"{run.schedule} has one model chunk per rank, and vp is {p.vp}"
        yield Violation(
            "virtual_stages", "parallelism.schedule", run.schedule, rule, "interleaved-1f1b, or vp: 1"
        )
    if p.vp == 1 and run.schedule in {"interleaved-1f1b", "interleaved-zb"}:
        yield Violation(
            "virtual_stages",
            "parallelism.schedule",
            run.schedule,
            "needs vp > 1",
            "1f1b, or parallelism.vp: 2",
        )


def interleaving(run: RunSpec) -> Iterator[Violation]:
    """Interleaving runs microbatches in groups of pp (Narayanan 2021, section 2.2.2)."""
    p = run.parallelism
    if run.schedule != "interleaved-1f1b" or next(global_batch(run), None) or run.gpus % _replica(run):
        return
    if run.microbatches % p.pp:
        step = run.training.micro_batch_size * run.dp * p.pp
        yield Violation(
            "interleaving",
            "training.global_batch_size",
            run.training.global_batch_size,
            f"{run.schedule} needs the microbatches ({run.microbatches}) to be a multiple of pp ({p.pp}), "
            f"so the global batch a multiple of micro_batch_size·dp·pp = {step}",
            near_multiples(step, run.training.global_batch_size),
        )


def stage_split(run: RunSpec) -> Iterator[Violation]:
    """Every stage holds as many layers as the others."""
    p, layers = run.parallelism, run.model.num_hidden_layers
    stages = p.pp * p.vp
    as_layers = p.stage_split == "embedding-and-loss-as-layers"
    units = layers + 2 if as_layers else layers
    if units % stages == 0:
        return
    other = layers if as_layers else layers + 2
    remedies = [
        f"vp: {listed(vps)}" if (vps := [vp for vp in _divisors(units // p.pp) if vp > 1]) else "vp: 1"
    ]
    remedies = remedies if units % p.pp == 0 else [f"pp·vp = {near_divisors(units, stages)}"]
    if other % stages == 0:
        remedies.append(f"stage_split: {'equal' if as_layers else 'embedding-and-loss-as-layers'}")
    yield Violation(
        "stage_split",
        "parallelism.pp" if units % p.pp else "parallelism.vp",
        p.pp if units % p.pp else p.vp,
        f"{'num_hidden_layers + 2' if as_layers else 'num_hidden_layers'} ({units}) of {run.model.name} must be "
        f"a multiple of pp·vp = {p.pp}·{p.vp} = {stages} with stage_split {p.stage_split}",
        ", or ".join(remedies),
    )


def recompute(run: RunSpec) -> Iterator[Violation]:
    """Options of recomputation belong to one granularity, and cannot exceed the layers of a stage."""
    asked, p = run.training.recompute, run.parallelism
    key = "training.recompute"
    if asked.granularity != "full":
        if asked.num_layers != 1:
            rule = f"only granularity full counts layers; it is {asked.granularity}"
            yield Violation("recompute", f"{key}.num_layers", asked.num_layers, rule, "granularity: full")
        if asked.method != "uniform":
            rule = f"only granularity full has a method; it is {asked.granularity}"
            yield Violation("recompute", f"{key}.method", asked.method, rule, "granularity: full")
    if asked.granularity != "selective" and asked.modules != ("core_attn",):
        rule = f"only granularity selective names modules; it is {asked.granularity}"
        yield Violation("recompute", f"{key}.modules", asked.modules, rule, "granularity: selective")
    if asked.granularity == "selective" and not asked.modules:
        yield Violation(
            "recompute", f"{key}.modules", (), "granularity selective needs modules", "[core_attn]"
        )
    per_chunk = -(-(run.model.num_hidden_layers + 2 * (p.stage_split != "equal")) // (p.pp * p.vp))
    if asked.granularity == "full" and asked.num_layers > per_chunk:
        rule = f"a model chunk has {per_chunk} layers (num_hidden_layers / (pp·vp))"
        yield Violation("recompute", f"{key}.num_layers", asked.num_layers, rule, f"1 to {per_chunk}")


def precision(run: RunSpec) -> Iterator[Violation]:
    """The device has the number format."""
    device, asked = run.cluster.device, run.training.precision
    if PEAK_KEY.get(asked, asked) not in device.peak_flops:
        has = [*device.peak_flops, *(name for name, key in PEAK_KEY.items() if key in device.peak_flops)]
        rule = f"{device.name} has no peak for it; it has {', '.join(has)}"
        yield Violation(
            "precision", "training.precision", asked, rule, "fp16" if "bf16" not in has else "bf16"
        )


def overlaps(run: RunSpec) -> Iterator[Violation]:
    """Switches that only mean something in some layouts."""
    p, runtime = run.parallelism, run.runtime
    if runtime.tp_overlap and not run.sequence_parallel:
        rule = "TP overlap needs tp > 1 with sequence parallelism"
        yield Violation("overlaps", "runtime.tp_overlap", True, rule, "false")
    if runtime.overlap_p2p and p.vp == 1:
        rule = "overlapped p2p needs an interleaved schedule (vp > 1)"
        yield Violation("overlaps", "runtime.overlap_p2p", True, rule, "false, or leave it out")


def node_shape(run: RunSpec) -> Iterator[Violation]:
    """A scale-up domain is made of whole nodes, or a node of whole domains."""
    domain, node = run.cluster.scale_up.domain_size, run.cluster.gpus_per_node
    if domain % node and node % domain:
        rule = f"must divide gpus_per_node ({node}) or be a multiple of it"
        yield Violation("node_shape", "cluster.scale_up.domain_size", domain, rule, str(node))


RULES: tuple[Rule, ...] = (
    model_shape,
    node_shape,
    world_size,
    whole_nodes,
    cluster_size,
    tensor_parallel,
    sequence_parallel,
    context_parallel,
    learned_positions,
    expert_parallel,
    global_batch,
    virtual_stages,
    interleaving,
    stage_split,
    recompute,
    precision,
    overlaps,
)


def near_multiples(step: int, near: int) -> str:
    """The multiples of ``step`` on both sides of a number."""
    below = near // step * step
    return listed([value for value in (below, below + step) if value])


def near_divisors(number: int, near: int) -> str:
    """The divisors of a number on both sides of another."""
    return listed(_nearest(_divisors(number), near))


def _nearest(choices: list[int], near: int) -> list[int]:
    below = [choice for choice in choices if choice <= near]
    above = [choice for choice in choices if choice > near]
    return [*([max(below)] if below else []), *([min(above)] if above else [])]


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def _replica(run: RunSpec) -> int:
    """GPUs of one data-parallel replica."""
    return run.parallelism.tp * run.parallelism.pp * run.parallelism.cp
