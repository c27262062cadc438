"""Rules of context parallelism: how sequences and heads divide, and which attention each method knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.rules.violation import Violation, divisors, near_choices, near_divisors, near_multiples
from simulator.spec.run import RunSpec

RINGS = ("ring", "torch-ring", "hierarchical")


def context_slices(run: RunSpec) -> Iterator[Violation]:
    """Causal balance gives every rank one early and one late slice of the sequence."""
    p, tokens = run.parallelism, run.training.seq_length
    if p.cp == 1:
        return
    exchanged = p.cp_method == "ulysses"
    slices = p.cp if exchanged else 2 * p.cp
    if tokens % slices:
        why = "" if exchanged else ": causal balance cuts the sequence into 2·cp slices"
        rule = f"must be a multiple of {'cp' if exchanged else '2·cp'} = {slices}{why}"
        yield Violation("training.seq_length", tokens, rule, near_multiples(slices, tokens))


def context_options(run: RunSpec) -> Iterator[Violation]:
    """A method needs a group to work in, and only the hierarchical one has inner groups."""
    p = run.parallelism
    if p.cp == 1 and p.cp_method != "ring":
        yield Violation("parallelism.cp_method", p.cp_method, "belongs to cp > 1", "cp: 2, or leave it out")
    if p.cp_method == "hierarchical":
        allowed = divisors(p.cp)[1:-1]
        if p.cp > 1 and not allowed:
            rule = f"needs a cp with divisors; it is {p.cp}"
            yield Violation("parallelism.cp_method", p.cp_method, rule, "ring or ulysses")
        elif p.cp > 1 and p.cp_inner not in allowed:
            rule = f"must divide cp = {p.cp}, and be more than 1 and less than it"
            yield Violation("parallelism.cp_inner", p.cp_inner, rule, near_choices(allowed, p.cp_inner))
    elif p.cp_inner:
        rule = f"belongs to cp_method hierarchical; it is {p.cp_method}"
        yield Violation("parallelism.cp_inner", p.cp_inner, rule, "leave it out")


def exchanged_heads(run: RunSpec) -> Iterator[Violation]:
    """Ranks that exchange heads get whole ones: query heads evenly, key-value heads evenly or by copies."""
    p, model = run.parallelism, run.model
    ranks = {"ulysses": p.cp, "hierarchical": p.cp_inner or 1}.get(p.cp_method, 1)
    heads, kv = model.num_attention_heads, model.num_key_value_heads
    key = "parallelism.cp" if p.cp_method == "ulysses" else "parallelism.cp_inner"
    if ranks == 1 or heads % p.tp:
        return
    if heads // p.tp % ranks:
        rule = f"must divide the {heads // p.tp} heads of {model.name} that a TP rank has"
        yield Violation(key, ranks, rule, near_divisors(heads // p.tp, ranks))
    elif kv % (p.tp * ranks) and p.tp * ranks % kv:
        rule = f"times tp ({p.tp}) must divide num_key_value_heads ({kv}), or be a multiple of it"
        yield Violation(key, ranks, rule, near_divisors(heads // p.tp, ranks))


def shared_scans(run: RunSpec) -> Iterator[Violation]:
    """A scan takes whole sequences of some heads; groups fewer than ranks would be copied to several."""
    p, model = run.parallelism, run.model
    if p.cp == 1 or "M" not in model.hybrid_layer_pattern:
        return
    for key, count in (
        ("mamba_num_heads", model.mamba_num_heads),
        ("mamba_n_groups", model.mamba_n_groups),
    ):
        if count % p.tp == 0 and count // p.tp % p.cp:
            rule = f"must divide the {count // p.tp} {key} of {model.name} that a TP rank has"
            yield Violation("parallelism.cp", p.cp, rule, near_divisors(count // p.tp, p.cp))


def shared_attention(run: RunSpec) -> Iterator[Violation]:
    """Sharing is modelled for fused attention; rings know no windows (as in Transformer Engine)."""
    p = run.parallelism
    if p.cp == 1:
        return
    if run.runtime.attention == "unfused":
        rule = "context parallelism needs fused attention"
        yield Violation("runtime.attention", run.runtime.attention, rule, "flash")
    if p.cp_method in RINGS and 0 < run.model.sliding_window < run.training.seq_length:
        rule = f"a ring has no sliding windows, which {run.model.name} has"
        yield Violation("parallelism.cp_method", p.cp_method, rule, "all-gather or ulysses")


def torch_ring(run: RunSpec) -> Iterator[Violation]:
    """PyTorch's own ring knows one mask, the causal one, and belongs to PyTorch's own attention."""
    p, runtime = run.parallelism, run.runtime
    if p.cp == 1 or p.cp_method != "torch-ring":
        return
    if runtime.software not in ("compiled", "eager"):
        rule = f"torch-ring is PyTorch's own (software compiled or eager); software is {runtime.software}"
        yield Violation("parallelism.cp_method", p.cp_method, rule, "ring")
    if run.documents is not None:
        rule = "PyTorch's ring has no masks of documents"
        yield Violation("parallelism.cp_method", p.cp_method, rule, "ring or all-gather")
    if run.model.bidirectional_layers:
        rule = f"PyTorch's ring balances causal attention; {run.model.name} has other"
        yield Violation("parallelism.cp_method", p.cp_method, rule, "ring")


def slices_in_order(run: RunSpec) -> Iterator[Violation]:
    """Balance is a question of causal blocks on a ring."""
    p = run.parallelism
    if p.cp_balance:
        return
    if p.cp == 1 or p.cp_method not in RINGS:
        rule = f"belongs to rings of cp > 1; cp is {p.cp}, cp_method {p.cp_method}"
    elif run.documents is not None:
        rule = "slices of documents are balanced"
    elif run.model.bidirectional_layers:
        rule = f"only causal attention has anything to balance; {run.model.name} has other"
    else:
        return
    yield Violation("parallelism.cp_balance", p.cp_balance, rule, "leave it out")


CONTEXT_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    context_slices,
    context_options,
    exchanged_heads,
    shared_scans,
    shared_attention,
    torch_ring,
    slices_in_order,
)
