"""Rules of the world: how many GPUs, and how TP, CP, EP and DP divide them and the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.rules.violation import Violation, divisors, near_choices, near_divisors, near_multiples
from simulator.spec.run import RunSpec


def world_size(run: RunSpec) -> Iterator[Violation]:
    """gpus = tp · pp · cp · dp."""
    p, replica = run.parallelism, replica_size(run)
    if run.gpus % replica:
        rule = f"must be a multiple of tp·pp·cp = {p.tp}·{p.pp}·{p.cp} = {replica}"
        yield Violation("gpus", run.gpus, rule, near_multiples(replica, run.gpus))
    elif p.dp and p.dp != run.gpus // replica:
        rule = f"must equal gpus / (tp·pp·cp) = {run.gpus} / {replica}, from which it is derived"
        yield Violation("parallelism.dp", p.dp, rule, f"{run.gpus // replica}, or leave dp out")


def whole_nodes(run: RunSpec) -> Iterator[Violation]:
    """A job larger than a node takes whole nodes."""
    node = run.cluster.gpus_per_node
    if run.gpus > node and run.gpus % node:
        rule = f"must fill whole nodes of {node} GPUs ({run.cluster.name})"
        yield Violation("gpus", run.gpus, rule, near_multiples(node, run.gpus))


def cluster_size(run: RunSpec) -> Iterator[Violation]:
    """The cluster has that many GPUs."""
    most = run.cluster.max_gpus
    if most and run.gpus > most:
        yield Violation("gpus", run.gpus, f"{run.cluster.name} has {most} GPUs", str(most))


def tensor_parallel(run: RunSpec) -> Iterator[Violation]:
    """TP splits query heads and the dense MLP's width evenly; key-value heads evenly, or by copies."""
    tp, model = run.parallelism.tp, run.model
    if run.parallelism.tp_mode != "1d":
        return  # grids have rules of their own
    if model.hybrid_layer_pattern:
        has_dense_mlp: object = "-" in model.hybrid_layer_pattern
    else:
        has_dense_mlp = not model.is_moe or model.first_k_dense_replace or model.moe_layer_freq > 1
    mamba = "M" in model.hybrid_layer_pattern
    for key, size in (
        ("num_attention_heads", model.num_attention_heads),
        ("mamba_n_groups", model.mamba_n_groups if mamba else 0),
        ("intermediate_size", model.intermediate_size if has_dense_mlp else 0),
        ("moe_shared_expert_intermediate_size", model.moe_shared_expert_intermediate_size),
    ):
        if size % tp:
            rule = f"must divide {key} ({size}) of {model.name}"
            yield Violation("parallelism.tp", tp, rule, near_divisors(size, tp))
    kv = model.num_key_value_heads
    if kv % tp and tp % kv:
        rule = f"must divide num_key_value_heads ({kv}) of {model.name}, or be a multiple of it"
        near = near_choices([*divisors(kv), tp // kv * kv + kv], tp)
        yield Violation("parallelism.tp", tp, rule, near)


def sequence_parallel(run: RunSpec) -> Iterator[Violation]:
    """Sequence parallelism cuts a rank's tokens over the TP group."""
    p, tokens = run.parallelism, run.training.seq_length
    if p.sequence_parallel and p.tp == 1:
        rule = "needs tp > 1: it splits norms and dropout over the TP group"
        yield Violation("parallelism.sequence_parallel", True, rule, "false, or leave it out")
    if run.sequence_parallel and tokens % (p.cp * p.tp):
        rule = f"must be a multiple of cp·tp = {p.cp}·{p.tp} = {p.cp * p.tp} with sequence parallelism"
        yield Violation("training.seq_length", tokens, rule, near_multiples(p.cp * p.tp, tokens))


def expert_parallel(run: RunSpec) -> Iterator[Violation]:
    """EP divides the experts, ETP their width, and both fold into the ranks of a stage."""
    p, model = run.parallelism, run.model
    if not model.is_moe:
        for key, value, off in (("ep", p.ep, 1), ("etp", p.etp, 0)):
            if value > 1:
                rule = f"{model.name} has no experts"
                yield Violation(f"parallelism.{key}", value, rule, f"{off}, or leave it out")
        return
    etp, width = p.etp or p.tp, model.moe_intermediate_size or model.intermediate_size
    if model.num_experts % p.ep:
        rule = f"must divide num_experts ({model.num_experts}) of {model.name}"
        yield Violation("parallelism.ep", p.ep, rule, near_divisors(model.num_experts, p.ep))
    if width % etp:
        rule = f"must divide the experts' width ({width}) of {model.name}"
        yield Violation(f"parallelism.{'etp' if p.etp else 'tp'}", etp, rule, near_divisors(width, etp))
    ranks = run.gpus // p.pp
    if run.gpus % p.pp == 0 and ranks % (p.ep * etp):
        rule = f"ep·etp = {p.ep}·{etp} must divide the {ranks} ranks of a pipeline stage"
        near = near_divisors(ranks // etp, p.ep) if ranks % etp == 0 else ""
        yield Violation("parallelism.ep", p.ep, rule, near)


def expert_sequence_parallel(run: RunSpec) -> Iterator[Violation]:
    """With TP, each token must reach the router once."""
    if run.model.is_moe and run.parallelism.tp > 1 and run.parallelism.sequence_parallel is False:
        rule = "a model with experts needs sequence parallelism when tp > 1"
        yield Violation("parallelism.sequence_parallel", False, rule, "true")


def replica_size(run: RunSpec) -> int:
    """GPUs of one data-parallel replica."""
    return run.parallelism.tp * run.parallelism.pp * run.parallelism.cp


LAYOUT_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    world_size,
    whole_nodes,
    cluster_size,
    tensor_parallel,
    sequence_parallel,
    expert_parallel,
    expert_sequence_parallel,
)
