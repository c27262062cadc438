"""Rules of low-rank adapters: where they are modelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.rules.violation import Violation
from simulator.spec.run import RunSpec


def adapters(run: RunSpec) -> Iterator[Violation]:
    """Adapters sit beside the dense products of decoders, whose frozen weights every replica holds."""
    lora, model, p = run.training.lora, run.model, run.parallelism
    if not lora.rank:
        return
    if not lora.targets:
        yield Violation(
            "training.lora.targets", [], "must name a product, or nothing is trained", "linear_qkv"
        )
    if len(set(lora.targets)) != len(lora.targets):
        yield Violation("training.lora.targets", list(lora.targets), "names a product twice")
    if p.zero == 3:
        rule = "adapters beside sharded weights are not modelled yet"
        yield Violation("parallelism.zero", p.zero, rule, "0 to 2")
    if p.tp_mode != "1d":
        yield Violation("parallelism.tp_mode", p.tp_mode, "adapters on a grid are not modelled yet", "1d")
    kinds = {
        "attention_type": model.attention_type if model.attention_type == "mla" else "",
        "num_experts": model.num_experts,
        "hybrid_layer_pattern": model.hybrid_layer_pattern,
        "num_encoder_layers": model.num_encoder_layers,
        "is_decoder": "false" if model.is_encoder else "",
        "num_nextn_predict_layers": model.num_nextn_predict_layers,
        "layers": model.layers,
    }
    for key, value in kinds.items():
        if value:
            shown = len(value) if isinstance(value, tuple) else value
            rule = "adapters are modelled beside dense decoder layers only"
            yield Violation(f"model.{key}", shown, rule, "training.lora.rank: 0")


LORA_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (adapters,)
