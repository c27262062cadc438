"""From a published row to a run that can be simulated, and the reasons why some cannot.

What a row states is taken; what it leaves open comes from the generation of its software
(:mod:`simulator.validation.software`), from a shipped model of the same dimensions, or from the spec's
defaults. Nothing here looks at who measured a row, at its name or at its measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache

from simulator.spec import catalogue
from simulator.spec.cluster import ClusterSpec
from simulator.spec.errors import SpecError
from simulator.spec.expert_load import ExpertLoad
from simulator.spec.load import load_cluster, load_model
from simulator.spec.lora import Lora
from simulator.spec.model import ModelSpec
from simulator.spec.published import Published
from simulator.spec.recompute import RECOMPUTE_MODULES, Recompute
from simulator.spec.rules import broken_rules
from simulator.spec.run import GRAPH_PARTS, Parallelism, RunSpec, Runtime, Training
from simulator.spec.sharding import FullySharded
from simulator.validation.published import Architecture, PublishedRun
from simulator.validation.software import Generation, generation_of

# (device, words of the interconnect, cluster); a device's default cluster where none fits
NETWORKS = (
    ("a100-sxm4-40gb", "1600 gb/s", "a100-40gb-roce-1600"),
    ("a100-sxm4-80gb", "1600 gb/s", "a100-80gb-roce-1600"),
    ("a100-sxm4-unspecified", "800 gb/s", "a100-80gb-hdr-4nic"),
    ("h100-sxm5-80gb", "grand teton", "grand-teton-h100-roce"),
)
# number formats as published -> the spec's, and its recipe
PRECISIONS = {
    **{name: (name, "") for name in ("fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4")},
    "fp8-ds": ("fp8", "delayed"),
    "fp8-cs": ("fp8", "current"),
    "fp8-subchannel": ("fp8", "blockwise"),
    "fp8 (128x128 block / 1x128 tile)": ("fp8", "blockwise"),
    "fp8-tw": ("fp8", "torchao-tensorwise"),
    "fp8-rw": ("fp8", "torchao-rowwise"),
}
OPTIMIZERS = {"": "adam", "adam": "adam", "adamw": "adamw", "decoupled adamw": "adamw", "muon": "muon"}


TASKS = {
    **dict.fromkeys(("pretrain", "sft"), Lora()),
    # NeMo's and Megatron-Bridge's fine-tuning recipes in their performance mode; tables do not say
    "lora": Lora(rank=16, targets=("linear_qkv",)),
}


class NotExpressibleError(Exception):
    """A row that no run file can say; the message is the reason."""


def to_run(row: PublishedRun) -> RunSpec:
    """The run of a row, built even where the simulator would refuse it (see :func:`refusals`).

    Raises:
        NotExpressibleError: a fact is not published, or the run's form has no place for it.
    """
    reasons = list(_missing(row))
    if reasons:
        raise NotExpressibleError(reasons[0])
    generation = generation_of(row.identity.software)
    measured = row.measured
    return RunSpec(
        name=row.run_id,
        model=_model(row),
        cluster=_cluster(row),
        gpus=row.machine.gpus,
        parallelism=_parallelism(row, generation),
        training=_training(row, generation),
        runtime=_runtime(row, generation),
        published=Published(
            source=row.identity.source,
            step_time_s=measured.step_time_s or 0.0,
            model_tflops_per_gpu=measured.tflops_per_gpu or 0.0,
            flops_convention=measured.flops_convention,
        ),
    )


def refusals(run: RunSpec) -> list[str]:
    """Every rule of the simulator that a run breaks, in words without the row's own numbers."""
    return [f"{broken.key_path}: {broken.rule}" for broken in broken_rules(run)]


def _missing(row: PublishedRun) -> Iterator[str]:
    """Facts without which no run can be built, and settings that no run file can say."""
    architecture, layout, recipe = row.architecture, row.layout, row.recipe
    for name in ("num_hidden_layers", "hidden_size", "num_attention_heads"):
        if not getattr(architecture, name):
            yield f"{name} is not published"
    for name in ("global_batch_size", "micro_batch_size", "tp", "pp"):
        if not getattr(layout, name):
            yield f"{name} is not published"
    if layout.pp and layout.pp > 1 and not layout.vp:
        yield "vp is not published"
    if recipe.task not in TASKS:
        yield f"the task is {recipe.task}"
    if recipe.optimizer not in OPTIMIZERS:
        yield f"optimizer {recipe.optimizer}"
    if recipe.precision not in PRECISIONS:
        yield f"precision {recipe.precision} has no counterpart"
    if unknown := set(recipe.recompute_modules) - set(RECOMPUTE_MODULES):
        yield f"recompute of {' and '.join(sorted(unknown))}"
    if recipe.offload_modules:
        yield f"activation offload of {' and '.join(recipe.offload_modules)}"


def _cluster(row: PublishedRun) -> ClusterSpec:
    device, words = row.machine.hardware, row.machine.interconnect.casefold()
    name = next((name for key, mark, name in NETWORKS if key == device and mark in words), device)
    try:
        return _load_cluster(name)
    except SpecError as error:
        raise NotExpressibleError(f"hardware {device}: {error.problems[0].rule}") from None


@cache
def _load_cluster(name: str) -> ClusterSpec:
    return load_cluster(name)


def _model(row: PublishedRun) -> ModelSpec:
    """The row's dimensions on the shipped model most like it, for what the row has no column for."""
    given = row.architecture
    like = _most_alike(given)
    stated = {
        field.name: getattr(given, field.name)
        for field in fields(given)
        if field.name in ModelSpec.__dataclass_fields__ and getattr(given, field.name) is not None
    }
    if given.attention_type not in {"mha", "gqa", "mla"}:
        if like is None or not like.hybrid_layer_pattern:
            raise NotExpressibleError(f"attention of type {given.attention_type}")
        del stated["attention_type"]
    if like is None:
        if given.attention_type == "mla" or not given.intermediate_size or not given.vocab_size:
            raise NotExpressibleError(
                "the model's dimensions are not complete, and no shipped model has them"
            )
        like = _plain(given)
    learned = like.position_embedding == "learned"
    positions = max(like.max_position_embeddings, row.layout.seq_length) if learned else 0
    changes: dict[str, object] = {
        **stated,
        "num_nextn_predict_layers": given.num_nextn_predict_layers or 0,
        "max_position_embeddings": positions or like.max_position_embeddings,
    }
    return replace(like, **changes)  # type: ignore[arg-type]  # columns are fields of the same types


def _plain(given: Architecture) -> ModelSpec:
    """A model of today's Llama kind (gated) or of GPT's kind, where no shipped one is alike."""
    return ModelSpec(
        name=given.model,
        num_hidden_layers=given.num_hidden_layers or 1,
        hidden_size=given.hidden_size or 1,
        intermediate_size=given.intermediate_size or 1,
        num_attention_heads=given.num_attention_heads or 1,
        vocab_size=given.vocab_size or 1,
        gated_mlp=bool(given.gated_mlp),
        hidden_act="silu" if given.gated_mlp else "gelu",
        norm="rmsnorm" if given.gated_mlp else "layernorm",
        linear_bias=not given.gated_mlp,
        position_embedding="rope" if given.gated_mlp else "learned",
        tie_word_embeddings=not given.gated_mlp,
    )


def _most_alike(given: Architecture) -> ModelSpec | None:
    """The shipped model of the same width, heads, gate and experts that agrees in most other dimensions."""

    def kind(model: ModelSpec | Architecture) -> tuple[object, ...]:
        return (
            model.hidden_size,
            model.num_attention_heads,
            bool(model.gated_mlp),
            model.num_experts or 0,
            model.attention_type == "mla",
        )

    others = ("num_hidden_layers", "vocab_size", "intermediate_size", "num_key_value_heads", "head_dim")
    alike = [model for model in _models() if kind(model) == kind(given)]
    return max(
        alike,
        key=lambda model: sum(getattr(model, name) == getattr(given, name) for name in others),
        default=None,
    )


@cache
def _models() -> tuple[ModelSpec, ...]:
    return tuple(load_model(name) for name in catalogue.names("models"))


def _parallelism(row: PublishedRun, generation: Generation) -> Parallelism:
    layout = row.layout
    pp, vp, tp = layout.pp or 1, layout.vp or 1, layout.tp or 1
    return Parallelism(
        tp=tp,
        pp=pp,
        vp=vp,
        cp=layout.cp or 1,
        cp_method=generation.cp_method if (layout.cp or 1) > 1 else "ring",
        ep=layout.ep or 1,
        etp=(layout.etp or 0) if row.is_moe else 0,
        dp=layout.dp or 0,
        sequence_parallel=layout.sequence_parallel if tp > 1 else None,
        zero=_zero(row, generation),
        fsdp=_fully_sharded(row, generation),
        schedule=layout.schedule if pp > 1 else "",
        stage_split=_stage_split(row, pp * vp),
    )


BUFFERS = {"fsdp1": "flat", "fsdp2": "copied", "megatron-fsdp": "in-place"}


def _zero(row: PublishedRun, generation: Generation) -> int:
    """The ZeRO stage. FSDP shards parameters even where it does not reshard them after the forward."""
    if row.layout.sharding in BUFFERS:
        return 3
    return generation.zero if row.layout.zero is None else row.layout.zero


def _fully_sharded(row: PublishedRun, generation: Generation) -> FullySharded:
    if _zero(row, generation) != 3:
        return FullySharded()
    sharding = row.layout.sharding or generation.sharding
    return FullySharded(
        reshard_after_forward=False if row.layout.zero == 2 else None,
        buffers=BUFFERS.get(sharding, "in-place"),  # type: ignore[arg-type]  # the spec's own words
    )


def _stage_split(row: PublishedRun, chunks: int) -> str:
    """As stated; else equal stages, embedding and loss counted as layers where only that makes them so; else
    as even as they get.
    """
    layers = row.architecture.num_hidden_layers or 1
    if row.layout.stage_layout:
        return row.layout.stage_layout
    if layers % chunks == 0:
        return "equal"
    return "even" if (layers + 2) % chunks else "embedding-and-loss-as-layers"


def _training(row: PublishedRun, generation: Generation) -> Training:
    layout, recipe = row.layout, row.recipe
    precision, fp8_recipe = PRECISIONS[recipe.precision]
    own = precision if precision in {"fp16", "bf16"} else "bf16"
    grad_dtype = recipe.grad_dtype or generation.grad_dtype or "fp32"
    fp8_params = generation.fp8_params if recipe.fp8_params is None else recipe.fp8_params
    return Training(
        seq_length=layout.seq_length,
        micro_batch_size=layout.micro_batch_size or 1,
        global_batch_size=layout.global_batch_size or 1,
        precision=precision,
        fp8_recipe=fp8_recipe,
        fp8_param_gather=fp8_params and precision in {"fp8", "mxfp8"},
        fp8_attention=bool(recipe.fp8_attention),
        grad_dtype=own if grad_dtype == "params" else grad_dtype,
        optimizer=OPTIMIZERS[recipe.optimizer],
        master_weights="remainder" if recipe.precision_aware_optimizer else "fp32",
        moment_dtype="bf16" if recipe.precision_aware_optimizer else "fp32",
        activation_offload_layers=recipe.offload_layers or 0,
        recompute=_recompute(row),
        lora=TASKS[recipe.task],
        moe=ExpertLoad(
            capacity_factor=recipe.capacity_factor or 0.0,
            pad_to_capacity=bool(recipe.capacity_factor),  # tables with a capacity pad to it
        ),
    )


def _recompute(row: PublishedRun) -> Recompute:
    granularity, modules = row.recipe.recompute or "none", row.recipe.recompute_modules
    if granularity == "selective":
        return Recompute(granularity=granularity, modules=modules)
    return Recompute(granularity=granularity)


def _runtime(row: PublishedRun, generation: Generation) -> Runtime:
    recipe, layout = row.recipe, row.layout
    stated = {
        name: value
        for name in ("attention", "overlap_grad_reduce", "overlap_param_gather", "overlap_p2p")
        if (value := getattr(recipe, name)) not in {None, ""}
    }
    usual = generation.runtime.get("attention", "flash")
    if stated.get("attention") == "flash" and usual != "unfused":
        stated["attention"] = usual  # which kernels fused attention is, the software decides
    given: dict[str, object] = {**generation.runtime, **stated}
    given["tp_overlap"] = bool(recipe.tp_overlap) and (layout.tp or 1) > 1
    given["scatter_gather"] = bool(given.get("scatter_gather")) and not layout.sequence_parallel
    if (layout.vp or 1) == 1:
        given.pop("overlap_p2p", None)  # without interleaving, messages are awaited anyway
    if not row.is_moe:
        given = {key: value for key, value in given.items() if not key.startswith("moe_")}
    elif recipe.ep_dispatcher:
        given["moe_dispatcher"] = recipe.ep_dispatcher
    given["ep_overlap"] = row.is_moe and bool(recipe.ep_overlap)
    given["delay_wgrad"] = bool(recipe.delay_wgrad)
    if recipe.cuda_graphs:
        given["cuda_graphs"] = recipe.cuda_graphs
    if recipe.cuda_graphs == "layer":
        given["cuda_graph_scope"] = tuple(m for m in recipe.cuda_graph_modules if m in GRAPH_PARTS)
    if recipe.compiled is not None:
        given["software"] = "compiled" if recipe.compiled else "eager"
    if any("cross-entropy fusion" in item for item in recipe.other):
        given["cross_entropy_fusion"] = True
    if recipe.rank_order:
        given["rank_order"] = recipe.rank_order
    return Runtime(**given)  # type: ignore[arg-type]  # names and types are Runtime's own
