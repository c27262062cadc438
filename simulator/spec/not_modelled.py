"""What a run file can say but the simulator does not model yet. Nothing is ever ignored: it is refused here.

When a feature lands, its line goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from simulator.spec.run import RunSpec

# key path, value, what is not modelled, what to do instead
Case: TypeAlias = tuple[str, object, str, str]

MODELLED_SCHEDULES = ("gpipe", "1f1b", "interleaved-1f1b")
MODELLED_PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


def model(run: RunSpec) -> Iterator[Case]:
    """Architectures."""
    m = run.model
    if m.is_moe:
        yield "model.num_experts", m.num_experts, "mixture of experts", "a dense model"
    if m.attention_type == "mla":
        yield "model.attention_type", "mla", "multi-head latent attention", "mha or gqa"
    if m.hybrid_layer_pattern:
        yield "model.hybrid_layer_pattern", m.hybrid_layer_pattern, "Mamba hybrid layers", "leave it out"
    if m.num_nextn_predict_layers:
        yield "model.num_nextn_predict_layers", m.num_nextn_predict_layers, "multi-token prediction", "0"


def parallelism(run: RunSpec) -> Iterator[Case]:
    """Ways to split."""
    p = run.parallelism
    if p.cp > 1:
        yield "parallelism.cp", p.cp, "context parallelism", "1"
    if p.ep > 1:
        yield "parallelism.ep", p.ep, "expert parallelism", "1"
    if p.zero > 1:
        yield "parallelism.zero", p.zero, "ZeRO-2 and ZeRO-3", "1"
    if run.schedule not in MODELLED_SCHEDULES:
        yield "parallelism.schedule", run.schedule, "this schedule", " or ".join(MODELLED_SCHEDULES)


def numbers(run: RunSpec) -> Iterator[Case]:
    """Number formats and recomputation."""
    training = run.training
    if training.precision not in MODELLED_PRECISIONS:
        yield "training.precision", training.precision, "training in 8 and 4 bits", "bf16"
    extra = [name for name in training.recompute.modules if name != "core_attn"]
    if training.recompute.granularity == "selective" and extra:
        yield (
            "training.recompute.modules",
            training.recompute.modules,
            f"recompute of {', '.join(extra)}",
            "[core_attn]",
        )


def runtime(run: RunSpec) -> Iterator[Case]:
    """Switches of the training software."""
    r = run.runtime
    if r.tp_overlap:
        yield "runtime.tp_overlap", True, "TP communication overlapped with its GEMM", "false"
    if r.cuda_graphs != "none":
        yield "runtime.cuda_graphs", r.cuda_graphs, "CUDA graphs", "none"


NOT_MODELLED: tuple[Callable[[RunSpec], Iterator[Case]], ...] = (model, parallelism, numbers, runtime)
