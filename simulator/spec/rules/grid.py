"""Rules of tensor parallelism on grids of GPUs (2-D, 2.5-D, 3-D)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.errors import listed
from simulator.spec.rules.violation import Violation, near_multiples
from simulator.spec.run import NARROW_PRECISIONS, RunSpec

SCHEDULES = ("gpipe", "1f1b", "interleaved-1f1b", "looped-bfs")
SIDES = range(2, 33)


def grid_shape(run: RunSpec) -> Iterator[Violation]:
    """A square, squares on each other, or a cube."""
    p = run.parallelism
    if p.tp_depth and p.tp_mode != "2.5d":
        rule = f"belongs to tp_mode 2.5d; it is {p.tp_mode} here"
        yield Violation("parallelism.tp_depth", p.tp_depth, rule, "0")
    if p.tp_mode == "2.5d" and not p.tp_depth:
        yield Violation("parallelism.tp_depth", 0, "must be given for tp_mode 2.5d", "2")
    elif p.tp_mode != "1d":
        shapes = {"2d": [q**2 for q in SIDES], "3d": [q**3 for q in SIDES]}
        allowed = shapes.get(p.tp_mode, [p.tp_depth * q**2 for q in SIDES])
        if p.tp not in allowed:
            what = {"2d": "q²", "3d": "q³"}.get(p.tp_mode, f"{p.tp_depth}·q²")
            near = sorted(sorted(allowed, key=lambda size: abs(size - p.tp))[:2])
            yield Violation("parallelism.tp", p.tp, f"must be {what} for tp_mode {p.tp_mode}", listed(near))


def grid_sizes(run: RunSpec) -> Iterator[Violation]:
    """Sequences are cut over rows and depth, features over columns."""
    p, model = run.parallelism, run.model
    rows, side, depth = p.tp_grid
    if p.tp_mode == "1d" or rows * side * depth != p.tp:
        return
    batch, parts = run.training.micro_batch_size, side * depth
    if batch % parts:
        rule = f"must be a multiple of {parts}: tp_mode {p.tp_mode} cuts sequences over {parts} ranks"
        yield Violation("training.micro_batch_size", batch, rule, near_multiples(parts, batch))
    for key in ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if getattr(model, key) % side:
            rule = f"{side} ranks a row must divide {key} ({getattr(model, key)}) of {model.name}"
            yield Violation("parallelism.tp", p.tp, rule)


def grid_options(run: RunSpec) -> Iterator[Violation]:
    """What is modelled on a grid: dense decoders in 16 bits, whose messages nothing hides."""
    p, runtime, model = run.parallelism, run.runtime, run.model
    if p.tp_mode == "1d":
        return
    kinds = (model.is_moe, model.attention_type == "mla", model.layers, model.bidirectional_layers)
    if any(kinds) or model.hybrid_layer_pattern or model.num_nextn_predict_layers or model.qk_norm:
        rule = f"is modelled for dense decoders with plain attention, which {model.name} is not"
        yield Violation("parallelism.tp_mode", p.tp_mode, rule, "1d")
    for key, value, refused, allowed in (
        ("parallelism.cp", p.cp, p.cp > 1, "1"),
        ("parallelism.sequence_parallel", True, p.sequence_parallel is True, "leave it out"),
        ("runtime.tp_overlap", True, runtime.tp_overlap, "false"),
        ("runtime.scatter_gather", True, runtime.scatter_gather, "false"),
        ("parallelism.schedule", run.schedule, run.schedule not in SCHEDULES, listed(SCHEDULES)),
        (
            "training.precision",
            run.training.precision,
            run.training.precision in (*NARROW_PRECISIONS, "fp32", "tf32"),
            "bf16 or fp16",
        ),
    ):
        if refused:
            yield Violation(key, value, f"is not modelled with tp_mode {p.tp_mode}", allowed)


GRID_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (grid_shape, grid_sizes, grid_options)
