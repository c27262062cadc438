"""Rules of the training software: which attention kernels exist for a device and a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec

# Generation of attention kernels -> architectures it has kernels for, and its largest head dimension.
# FlashAttention-1 and Triton's of the time stop at 128; FlashAttention-3 needs Hopper's tensor cores.
GENERATIONS: dict[str, tuple[tuple[str, ...], int]] = {
    "flash1": (("ampere", "hopper"), 128),
    "triton": (("ampere", "hopper"), 128),
    "flash2": (("ampere", "hopper"), 256),
    "flash3": (("hopper",), 256),
    "cudnn": (("hopper", "blackwell"), 256),
}


def attention_generation(run: RunSpec) -> Iterator[Violation]:
    """A named generation has kernels for the device and for the model's heads."""
    asked, device = run.runtime.attention, run.cluster.device
    if asked not in GENERATIONS or device.architecture == "other":
        return
    architectures, largest = GENERATIONS[asked]
    if device.architecture not in architectures:
        rule = f"has no kernels for {device.name} ({device.architecture})"
        there = [name for name, (known, _) in GENERATIONS.items() if device.architecture in known]
        yield Violation("runtime.attention", asked, rule, ", ".join(("flash", *there)))
    width = _head_dim(run)
    if width > largest:
        rule = f"has no kernels for heads of {width}, only up to {largest}"
        there = [name for name, (known, most) in GENERATIONS.items() if most >= width]
        yield Violation("runtime.attention", asked, rule, ", ".join(("flash", *there)))


def _head_dim(run: RunSpec) -> int:
    model = run.model
    latent = model.attention_type == "mla"
    return model.qk_nope_head_dim + model.qk_rope_head_dim if latent else model.head_dim


def optimizer_fusion(run: RunSpec) -> Iterator[Violation]:
    """What PyTorch does operator by operator is known of Adam with fp32 master weights."""
    asked, t = run.runtime.optimizer_fusion, run.training
    if asked is False and (t.optimizer not in ("adam", "adamw") or t.master_weights != "fp32"):
        rule = f"needs adam or adamw with fp32 master weights, not {t.optimizer} with {t.master_weights}"
        yield Violation("runtime.optimizer_fusion", asked, rule, "true, or leave it out")


def graph_scope(run: RunSpec) -> Iterator[Violation]:
    """Parts are captured where layers are."""
    runtime = run.runtime
    if runtime.cuda_graph_scope and runtime.cuda_graphs != "layer":
        rule = f"needs cuda_graphs layer, not {runtime.cuda_graphs}"
        scope = ", ".join(runtime.cuda_graph_scope)
        yield Violation("runtime.cuda_graph_scope", scope, rule, "cuda_graphs: layer, or leave it out")


def sustained_error(run: RunSpec) -> Iterator[Violation]:
    """The shipped factor has its own error, and benchmarked rates have theirs."""
    s = run.simulation
    if s.sustained_error and isinstance(s.sustained, bool):
        rule = "belongs to a factor of one's own: simulation.sustained is not a number"
        yield Violation("simulation.sustained_error", s.sustained_error, rule, "0")


SOFTWARE_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    attention_generation,
    optimizer_fusion,
    graph_scope,
    sustained_error,
)
