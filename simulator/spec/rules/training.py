"""Rules of the training options: sequence, precision, recomputation and overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.spec.recompute import Recompute
from simulator.spec.rules.violation import Violation, near_multiples
from simulator.spec.run import FULL_PRECISIONS, GPT_CONVENTIONS, NARROW_PRECISIONS, RunSpec

# Formats that run at the rate of another one's entry in ``peak_flops``.
PEAK_KEY = {"mxfp8": "fp8", "nvfp4": "fp4"}


def learned_positions(run: RunSpec) -> Iterator[Violation]:
    """A table of position embeddings has an entry for every position."""
    model, tokens = run.model, run.training.seq_length
    if model.position_embedding == "learned" and 0 < model.max_position_embeddings < tokens:
        rule = f"{model.name} has {model.max_position_embeddings} learned positions"
        remedy = f"{model.max_position_embeddings}, or model.max_position_embeddings: {tokens}"
        yield Violation("training.seq_length", tokens, rule, remedy)


def scanned_chunks(run: RunSpec) -> Iterator[Violation]:
    """A Mamba layer scans whole chunks."""
    model, tokens = run.model, run.training.seq_length
    if "M" in model.hybrid_layer_pattern and tokens % model.chunk_size:
        rule = f"must be a multiple of the chunk_size ({model.chunk_size}) of {model.name}"
        yield Violation("training.seq_length", tokens, rule, near_multiples(model.chunk_size, tokens))


def precision(run: RunSpec) -> Iterator[Violation]:
    """The device has a rate for the number format."""
    device, asked = run.cluster.device, run.training.precision
    if PEAK_KEY.get(asked, asked) not in device.peak_flops:
        has = [*device.peak_flops, *(name for name, key in PEAK_KEY.items() if key in device.peak_flops)]
        rule = f"{device.name} has a peak_flops for {', '.join(has)} only"
        yield Violation(
            "training.precision", asked, rule, next((x for x in ("bf16", "fp16") if x in has), "")
        )


def full_precision(run: RunSpec) -> Iterator[Violation]:
    """Flash attention needs 16 bits, and so do updates on the host and the gathers of experts' rows."""
    asked, p, model = run.training.precision, run.parallelism, run.model
    if asked not in FULL_PRECISIONS:
        return
    if run.runtime.attention != "unfused" and not model.layers:
        rule = f"fused attention needs 16 bits; precision is {asked}"
        yield Violation("runtime.attention", run.runtime.attention, rule, "unfused")
    if p.offload.optimizer != "device":
        rule = f"an optimizer on the host is not modelled for weights in {asked}"
        yield Violation("parallelism.offload.optimizer", p.offload.optimizer, rule, "device")
    if model.is_moe or model.num_encoder_layers or model.hybrid_layer_pattern:
        rule = f"is not modelled for {model.name}: dense decoders, encoders and operator graphs only"
        yield Violation("training.precision", asked, rule, "bf16")


def block_scaled(run: RunSpec) -> Iterator[Violation]:
    """Formats with hardware block scales came with Blackwell."""
    device, asked = run.cluster.device, run.training.precision
    if asked in PEAK_KEY and device.architecture not in ("blackwell", "other"):
        rule = f"needs tensor cores that scale blocks (Blackwell); {device.name} is {device.architecture}"
        yield Violation("training.precision", asked, rule, "fp8" if "fp8" in device.peak_flops else "bf16")


def narrow_options(run: RunSpec) -> Iterator[Violation]:
    """Options of narrow precisions belong to them."""
    t = run.training
    if t.fp8_recipe and t.precision != "fp8":
        rule = f"belongs to precision fp8; it is {t.precision} here"
        yield Violation("training.fp8_recipe", t.fp8_recipe, rule, 'precision: fp8, or ""')
    if t.fp8_param_gather and t.precision not in ("fp8", "mxfp8"):
        rule = f"belongs to precision fp8 or mxfp8; it is {t.precision} here"
        yield Violation("training.fp8_param_gather", True, rule, "false")
    if t.fp8_attention and (t.precision not in NARROW_PRECISIONS or run.runtime.attention == "unfused"):
        rule = f"needs precision {', '.join(NARROW_PRECISIONS)} and attention flash"
        yield Violation("training.fp8_attention", True, rule, "false")
    if t.narrow_activations and t.precision not in NARROW_PRECISIONS:
        rule = f"belongs to precision {', '.join(NARROW_PRECISIONS)}; it is {t.precision} here"
        yield Violation("training.narrow_activations", t.narrow_activations, rule, "[]")
    if "attention_output" in t.narrow_activations and run.runtime.attention == "unfused":
        rule = "unfused attention keeps its probabilities, not its output"
        yield Violation("training.narrow_activations", t.narrow_activations, rule, "[mlp_activation_input]")
    for key in ("num_layers_at_start_in_bf16", "num_layers_at_end_in_bf16"):
        asked, layers = getattr(t, key), run.model.num_hidden_layers
        if asked and t.precision not in NARROW_PRECISIONS:
            rule = f"belongs to precision {', '.join(NARROW_PRECISIONS)}; it is {t.precision} here"
            yield Violation(f"training.{key}", asked, rule, "0")
        elif asked > layers:
            rule = f"must be at most the {layers} layers of {run.model.name}"
            yield Violation(f"training.{key}", asked, rule, str(layers))


def recompute_options(run: RunSpec) -> Iterator[Violation]:
    """Every option of recomputation belongs to one granularity."""
    asked, default = run.training.recompute, Recompute()
    for key, owner in (("method", "full"), ("num_layers", "full"), ("modules", "selective")):
        value = getattr(asked, key)
        if asked.granularity != owner and value != getattr(default, key):
            rule = f"belongs to granularity {owner}; it is {asked.granularity} here"
            yield Violation(f"training.recompute.{key}", value, rule, f"granularity: {owner}")
    if asked.granularity == "selective" and not asked.modules:
        yield Violation("training.recompute.modules", (), "must name what is recomputed", "[core_attn]")
    if "per-op" in asked.modules and len(asked.modules) > 1:
        rule = "per-op decides about every operator and stands alone"
        yield Violation("training.recompute.modules", asked.modules, rule, "[per-op]")


def recompute_depth(run: RunSpec) -> Iterator[Violation]:
    """Full recomputation counts layers of one model chunk."""
    asked, p = run.training.recompute, run.parallelism
    most = -(-run.model.num_hidden_layers // (p.pp * p.vp))
    if asked.granularity == "full" and asked.num_layers > most:
        rule = f"must be at most the layers of a model chunk, {most}"
        yield Violation("training.recompute.num_layers", asked.num_layers, rule, str(most))


def offload_depth(run: RunSpec) -> Iterator[Violation]:
    """Offloaded layers are counted in one model chunk."""
    asked, p = run.training.activation_offload_layers, run.parallelism
    most = -(-run.model.num_hidden_layers // (p.pp * p.vp))
    if asked > most:
        rule = f"must be at most the layers of a model chunk, {most}"
        yield Violation("training.activation_offload_layers", asked, rule, str(most))


def flops_convention(run: RunSpec) -> Iterator[Violation]:
    """The closed formulas of the Megatron papers hold for GPT's proportions only."""
    asked = run.simulation.flops_convention
    if asked in GPT_CONVENTIONS and not run.model.is_gpt:
        rule = f"counts the FLOPs of GPT layers only, which {run.model.name} has not"
        yield Violation("simulation.flops_convention", asked, rule, "megatron or megatron-full")


def overlaps(run: RunSpec) -> Iterator[Violation]:
    """Overlap needs something to overlap."""
    runtime = run.runtime
    if runtime.tp_overlap and not run.sequence_parallel:
        rule = "needs tp > 1 with sequence parallelism"
        yield Violation("runtime.tp_overlap", True, rule, "false")
    if not runtime.batch_p2p and (run.parallelism.pp == 1 or run.schedule != "1f1b"):
        rule = f"one call per message is modelled for 1f1b over stages, not for {run.schedule}"
        yield Violation("runtime.batch_p2p", False, rule, "true, or leave it out")
    if runtime.overlap_p2p is False and run.parallelism.pp > 1 and run.schedule in ("zb-h1", "zb-h2"):
        rule = f"messages of {run.schedule} run beside compute: neighbours that block wait for each other"
        yield Violation("runtime.overlap_p2p", False, rule, "true, or leave it out")
    if runtime.overlap_p2p and run.schedule in ("gpipe", "1f1b"):
        rule = f"needs an interleaved schedule (vp > 1): messages of {run.schedule} wait for each other"
        yield Violation("runtime.overlap_p2p", True, rule, "false, or leave it out")


TRAINING_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    learned_positions,
    scanned_chunks,
    precision,
    full_precision,
    block_scaled,
    narrow_options,
    recompute_options,
    recompute_depth,
    offload_depth,
    flops_convention,
    overlaps,
)
