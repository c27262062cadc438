"""Rules of expert layers: dispatchers, loads and what may overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.expert_load import ExpertLoad
from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec, Runtime

PAIRING = ("interleaved-1f1b", "dualpipe", "dualpipev")


def expert_options(run: RunSpec) -> Iterator[Violation]:
    """Options of expert layers need a model that has some."""
    if run.model.is_moe:
        return
    rule = f"{run.model.name} has no experts"
    switches, unset = run.runtime, Runtime()
    for key in (
        *("moe_dispatcher", "moe_grouped_gemm", "moe_permute_fusion", "moe_router_fusion"),
        *("moe_shared_expert_overlap", "moe_dispatch_precision", "ep_overlap"),
    ):
        value = getattr(switches, key)
        if value != getattr(unset, key):
            yield Violation(f"runtime.{key}", value, rule, "leave it out")
    if run.training.moe != ExpertLoad():
        yield Violation("training.moe", "given", rule, "leave it out")


def expert_recompute(run: RunSpec) -> Iterator[Violation]:
    """What is recomputed by name exists in the model."""
    modules, model = run.training.recompute.modules, run.model
    has_dense = not model.is_moe or model.first_k_dense_replace or model.moe_layer_freq > 1
    if model.hybrid_layer_pattern:
        has_dense = "-" in model.hybrid_layer_pattern
    has_shared = model.n_shared_experts or model.moe_shared_expert_intermediate_size
    for module, present in (
        ("moe", model.is_moe),
        ("moe_act", model.is_moe),
        ("shared_experts", has_shared),
        ("activation", has_dense and not model.layers),
        ("mla_up_proj", model.attention_type == "mla"),
    ):
        if module in modules and not present:
            rest = [name for name in modules if name != module] or ["core_attn"]
            rule = f"{model.name} has nothing that {module} names"
            yield Violation("training.recompute.modules", module, rule, f"[{', '.join(rest)}]")


def expert_dispatcher(run: RunSpec) -> Iterator[Violation]:
    """Node-limited dispatchers know no expert-TP; shared experts overlap with the all-to-all dispatcher's."""
    p, dispatcher, model = run.parallelism, run.runtime.moe_dispatcher, run.model
    if not model.is_moe:
        return
    etp = p.etp or p.tp
    if run.runtime.moe_dispatch_precision == "fp8" and dispatcher not in ("deepep", "hybridep"):
        rule = f"needs moe_dispatcher deepep or hybridep, not {dispatcher}"
        yield Violation("runtime.moe_dispatch_precision", "fp8", rule, "bf16")
    if dispatcher in ("deepep", "hybridep") and etp > 1:
        rule = f"{dispatcher} is modelled with etp 1 only; it is {etp}"
        yield Violation("runtime.moe_dispatcher", dispatcher, rule, "parallelism.etp: 1, or alltoall")
    if run.runtime.moe_shared_expert_overlap:
        if dispatcher != "alltoall":
            rule = f"needs moe_dispatcher alltoall, not {dispatcher}"
            yield Violation("runtime.moe_shared_expert_overlap", True, rule, "false")
        if not (model.n_shared_experts or model.moe_shared_expert_intermediate_size):
            rule = f"{model.name} has no shared experts"
            yield Violation("runtime.moe_shared_expert_overlap", True, rule, "false")


def expert_overlap(run: RunSpec) -> Iterator[Violation]:
    """Overlap of all-to-alls needs some, and pairs that keep a pipeline busy."""
    p, runtime = run.parallelism, run.runtime
    if runtime.delay_wgrad and not runtime.ep_overlap:
        yield Violation("runtime.delay_wgrad", True, "needs ep_overlap", "false, or ep_overlap: true")
    if not runtime.ep_overlap:
        return
    if p.ep == 1 or runtime.moe_dispatcher == "allgather":
        rule = "hides all-to-alls between experts' ranks; here are none"
        yield Violation("runtime.ep_overlap", True, rule, "false")
    if runtime.moe_shared_expert_overlap:
        rule = "hides the same communication as ep_overlap; Megatron allows one of them"
        yield Violation("runtime.moe_shared_expert_overlap", True, rule, "false")
    if p.pp > 1 and run.schedule not in PAIRING:
        rule = f"needs a schedule whose pairs do not wait for each other: {', '.join(PAIRING)}, or pp 1"
        yield Violation("runtime.ep_overlap", True, rule, "false, or vp: 2")


def expert_load(run: RunSpec) -> Iterator[Violation]:
    """One description of uneven routing; padding needs a capacity."""
    load, ep = run.training.moe, run.parallelism.ep
    if load.variation and load.imbalance > 1:
        rule = "give the fullest rank's load, or draw popularities by variation, not both"
        yield Violation("training.moe.imbalance", load.imbalance, rule, "1, or variation: 0")
    if load.imbalance > ep:
        rule = f"at most all rows go to one of {ep} ranks of an EP group"
        yield Violation("training.moe.imbalance", load.imbalance, rule, f"1 to {ep}")
    if load.pad_to_capacity and not load.capacity_factor:
        rule = "needs a capacity_factor"
        yield Violation("training.moe.pad_to_capacity", True, rule, "false, or capacity_factor: 1")


def expert_groups(run: RunSpec) -> Iterator[Violation]:
    """Groups of experts are equal, and a token picks from some of them."""
    model = run.model
    if bool(model.n_group) != bool(model.topk_group) or model.topk_group > model.n_group:
        rule = f"must be 1 to n_group ({model.n_group}) where experts are grouped"
        yield Violation("model.topk_group", model.topk_group, rule, str(model.n_group))
    if model.n_group and model.num_experts % model.n_group:
        rule = f"must divide num_experts ({model.num_experts})"
        yield Violation("model.n_group", model.n_group, rule, "1")


EXPERT_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    expert_options,
    expert_recompute,
    expert_dispatcher,
    expert_overlap,
    expert_load,
    expert_groups,
)
