"""Rules of models that are operator graphs: their shapes, and what of a run does not apply to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

from simulator.spec.errors import ABSENT, listed
from simulator.spec.model import ModelSpec
from simulator.spec.operator_graph import PRODUCTS, placed_layers
from simulator.spec.rules.violation import Violation, near_divisors
from simulator.spec.run import RunSpec
from simulator.spec.stage_layout import has_empty_stage

SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
OF_ANY_MODEL = {"name", "source", "notes", "published_parameters", "sample", "layers", "num_hidden_layers"}
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


def kind_of_model(model: ModelSpec) -> Iterator[Violation]:
    """A model has the sizes of a transformer, or the sample and layers of an operator graph."""
    if not model.layers:
        for key in SIZES:
            if not getattr(model, key) and not (key == "vocab_size" and model.image_size):
                yield Violation(key, ABSENT, "this key is required")
        if model.sample:
            yield Violation("sample", model.sample, "belongs to an operator graph (layers)", "leave it out")
        return
    if len(model.sample) not in (1, 3):
        rule = "must hold channels, height and width of what enters, or features alone"
        yield Violation("sample", model.sample or ABSENT, rule, "[3, 224, 224]")
    for each in fields(model):
        value = getattr(model, each.name)
        if each.name not in OF_ANY_MODEL and value != each.default:
            rule = "belongs to a transformer, not to an operator graph (layers)"
            yield Violation(each.name, value, rule, "leave it out")


def graph_shapes(model: ModelSpec) -> Iterator[Violation]:
    """Every operator takes what comes in."""
    if not model.layers or len(model.sample) not in (1, 3):
        return
    for number, layer in enumerate(model.layers):
        if not layer.operators:
            yield Violation(f"layers.{number}.operators", [], "must hold an operator", "- {op: conv2d, …}")
            return
    try:
        count = sum(1 for _ in placed_layers(model.sample, model.layers))
    except ValueError as error:
        yield Violation("layers", ABSENT, str(error))
        return
    if count != model.num_hidden_layers:
        rule = f"is counted from layers ({count})"
        yield Violation("num_hidden_layers", model.num_hidden_layers, rule, "leave it out")


def graph_options(run: RunSpec) -> Iterator[Violation]:
    """What of a run belongs to transformers."""
    if not run.model.layers:
        return
    p, t = run.parallelism, run.training
    for key, value, allowed in (
        ("training.seq_length", t.seq_length, (1,)),
        ("training.precision", t.precision, PRECISIONS),
        ("training.recompute.granularity", t.recompute.granularity, ("none", "full")),
        ("parallelism.vp", p.vp, (1,)),
        ("parallelism.cp", p.cp, (1,)),
        ("parallelism.sequence_parallel", p.sequence_parallel, (None, False)),
        ("runtime.scatter_gather", run.runtime.scatter_gather, (False,)),
        ("simulation.flops_convention", run.simulation.flops_convention, ("megatron",)),
    ):
        if value not in allowed:
            rule = f"must be {listed(allowed)} for an operator graph ({run.model.name})"
            yield Violation(key, value, rule, listed(allowed))


def graph_channels(run: RunSpec) -> Iterator[Violation]:
    """Tensor parallelism gives each rank the same share of every layer's channels."""
    tp = run.parallelism.tp
    if tp == 1:
        return
    for layer in run.model.layers:
        for operator in layer.operators:
            if operator.op not in PRODUCTS:
                continue
            if operator.channels % tp:
                rule = f"must divide the {operator.channels} channels of layer {layer.name}"
                yield Violation("parallelism.tp", tp, rule, near_divisors(operator.channels, tp))
            if operator.groups > 1 and operator.groups % tp:
                rule = f"must divide the {operator.groups} groups of layer {layer.name}"
                yield Violation("parallelism.tp", tp, rule, near_divisors(operator.groups, tp))


def graph_stages(run: RunSpec) -> Iterator[Violation]:
    """Every stage of an operator graph holds a layer."""
    split = run.parallelism.stage_split
    if not run.model.layers:
        return
    if isinstance(split, tuple) or "|" in split:
        if has_empty_stage(split):
            rule = "every stage of an operator graph holds a layer (t)"
            yield Violation("parallelism.stage_split", split, rule, "Et|tL")
    elif split not in ("equal", "even"):
        rule = f"{run.model.name} has no embedding and no head to count as layers"
        yield Violation("parallelism.stage_split", split, rule, "equal, even or a layout such as Et*3|t*2L")


MODEL_KIND_RULES: tuple[Callable[[ModelSpec], Iterator[Violation]], ...] = (kind_of_model, graph_shapes)
GRAPH_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    graph_options,
    graph_channels,
    graph_stages,
)
