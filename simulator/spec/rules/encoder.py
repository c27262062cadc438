"""Rules of encoders, encoder–decoders and vision transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.model import ModelSpec
from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec
from simulator.spec.stage_layout import has_empty_stage
from simulator.spec.stage_split import BALANCED

OF_DECODERS = (
    *("num_experts", "num_nextn_predict_layers", "hybrid_layer_pattern", "sliding_window"),
    *("attention_sinks", "q_lora_rank", "kv_lora_rank"),
)
OF_IMAGES = ("image_size", "patch_size", "num_labels")


def sides(model: ModelSpec) -> Iterator[Violation]:
    """An encoder, or an encoder before a decoder, with plain attention and MLPs."""
    if not model.bidirectional_layers:
        return
    if model.is_encoder and model.num_encoder_layers:
        rule = "belongs to an encoder–decoder (is_decoder: true)"
        yield Violation("num_encoder_layers", model.num_encoder_layers, rule, "0")
    if model.num_encoder_layers >= model.num_hidden_layers:
        rule = f"must leave a decoder some of the {model.num_hidden_layers} layers"
        near = str(model.num_hidden_layers // 2)
        yield Violation("num_encoder_layers", model.num_encoder_layers, rule, near)
    for key in OF_DECODERS:
        if value := getattr(model, key):
            yield Violation(key, value, "is not modelled in encoders", "leave it out")


def images(model: ModelSpec) -> Iterator[Violation]:
    """A vision transformer is an encoder of whole patches."""
    given = {key: getattr(model, key) for key in OF_IMAGES}
    if not any(given.values()):
        return
    for key, value in given.items():
        if not value:
            yield Violation(key, value, "must be given for a vision transformer")
    if model.is_decoder:
        yield Violation("is_decoder", True, "a vision transformer is an encoder", "false")
    if model.patch_size and model.image_size % model.patch_size:
        rule = f"must divide image_size ({model.image_size})"
        yield Violation("patch_size", model.patch_size, rule, "16")


def sequence_lengths(run: RunSpec) -> Iterator[Violation]:
    """Each side has its length; an image has a token for every patch, and one for its class."""
    model, t = run.model, run.training
    if bool(t.decoder_seq_length) != bool(model.num_encoder_layers):
        needed = model.num_encoder_layers
        rule = f"{'must be given for' if needed else 'belongs to'} an encoder–decoder (num_encoder_layers)"
        remedy = str(t.seq_length) if needed else "0"
        yield Violation("training.decoder_seq_length", t.decoder_seq_length, rule, remedy)
    if model.image_size and model.patch_size:
        tokens = (model.image_size // model.patch_size) ** 2 + 1
        if t.seq_length != tokens:
            rule = f"{model.name} has {tokens} tokens: a patch each, and the class"
            yield Violation("training.seq_length", t.seq_length, rule, str(tokens))


def two_sides(run: RunSpec) -> Iterator[Violation]:
    """What of a run is not modelled for an encoder–decoder."""
    if not run.model.num_encoder_layers:
        return
    p = run.parallelism
    for key, value, allowed in (
        ("parallelism.vp", p.vp, 1),
        ("parallelism.cp", p.cp, 1),
        ("runtime.attention", run.runtime.attention == "unfused", False),
    ):
        if value != allowed:
            shown = "unfused" if value is True else value
            rule = f"is not modelled for an encoder–decoder ({run.model.name})"
            yield Violation(key, shown, rule, "flash" if value is True else "1")
    if has_empty_stage(p.stage_split) or p.stage_split == BALANCED:
        rule = "every stage of an encoder–decoder must be sure to hold a layer (t)"
        yield Violation("parallelism.stage_split", p.stage_split, rule, "Et|tL")
    if run.simulation.flops_convention not in ("megatron", "megatron-full"):
        rule = "describes no encoder–decoder"
        yield Violation("simulation.flops_convention", run.simulation.flops_convention, rule, "megatron")


ENCODER_MODEL_RULES: tuple[Callable[[ModelSpec], Iterator[Violation]], ...] = (sides, images)
ENCODER_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (sequence_lengths, two_sides)
