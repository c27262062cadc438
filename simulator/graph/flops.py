"""FLOPs of a training step, by the conventions that publications count in. They differ by up to a third.

A convention is a rule for the FLOPs of *one sequence in one step* (forward and both gradients); the step is
that times the global batch. Symbols as in the papers: `L` layers, `h` hidden, `a` heads, `d` head size,
`s` sequence length, `V` vocabulary (padded, if the run pads it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from simulator.graph.blocks import (
    Block,
    attention_weights,
    expert_weights,
    layer_blocks,
    mlp_weights,
    prediction_blocks,
    shared_expert_weights,
)
from simulator.graph.documents import filled, whole_mask
from simulator.graph.operator_graph import graph_forward_flops
from simulator.graph.parameters import count_parameters
from simulator.spec.documents import Documents
from simulator.spec.model import ModelSpec

SequenceRule = Callable[[ModelSpec, int, int], float]

PASSES = 3.0  # FLOPs of a training step over those of its forward pass, recomputation not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """One way to count: ``sequence_flops(model, seq_length, vocab_size)`` for one trained sequence.

    ``includes_recompute``: the rule counts the forwards that activation recomputation repeats, so that the
    rate is a hardware utilisation (HFU), not MFU.
    """

    name: str
    description: str
    source: str
    sequence_flops: SequenceRule
    includes_recompute: bool = False
    packed: bool = False  # attention inside documents, and no padding, where a run has documents

    def flops_per_step(
        self,
        model: ModelSpec,
        *,
        seq_length: int,
        global_batch_size: int,
        padded_vocab_size: int = 0,
        decoder_seq_length: int = 0,
        documents: Documents | None = None,
    ) -> float:
        """FLOPs of one optimizer step over all GPUs.

        Args:
            model: the architecture.
            seq_length: tokens per sequence.
            global_batch_size: sequences per step.
            padded_vocab_size: vocabulary of the output logits; 0 takes the model's own.
            decoder_seq_length: tokens per sequence of the decoder beside an encoder.
            documents: packed into each sequence.

        Raises:
            ValueError: the convention's formula does not describe this model.
        """
        vocabulary = padded_vocab_size or model.vocab_size
        if model.num_encoder_layers:
            lengths = (seq_length, decoder_seq_length)
            return global_batch_size * _two_sided(model, self.name, lengths, vocabulary)
        if self.packed and documents is not None:
            return global_batch_size * _megatron_packed(model, seq_length, vocabulary, documents)
        return global_batch_size * self.sequence_flops(model, seq_length, vocabulary)

    def flops_per_token(self, model: ModelSpec, *, seq_length: int, padded_vocab_size: int = 0) -> float:
        """FLOPs of one trained token, the figure to compare conventions by."""
        step = self.flops_per_step(
            model, seq_length=seq_length, global_batch_size=1, padded_vocab_size=padded_vocab_size
        )
        return step / seq_length


def find_convention(name: str) -> Convention:
    """The convention of that name. Raises ValueError with the nearest name."""
    if name in CONVENTIONS:
        return CONVENTIONS[name]
    near = get_close_matches(name, CONVENTIONS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown FLOP convention {name!r}: known are {', '.join(CONVENTIONS)}{hint}")


def _block_weights(model: ModelSpec, block: Block) -> int:
    """Weights that one token is multiplied by. The router is not counted, as in Megatron-LM."""
    if block == "attention":
        return attention_weights(model)
    if block == "mlp":
        return mlp_weights(model)
    return model.num_experts_per_tok * expert_weights(model) + shared_expert_weights(model)


def _attention_core(model: ModelSpec, keys: float) -> float:
    """Forward FLOPs of one token's scores and weighted sum over ``keys`` keys: 2·keys·a·(qk + v)."""
    if model.attention_type == "mla":
        dims = model.qk_nope_head_dim + model.qk_rope_head_dim + model.v_head_dim
    else:
        dims = 2 * model.head_dim
    return 2.0 * keys * model.num_attention_heads * dims


def _causal_keys(model: ModelSpec, seq_length: int) -> float:
    """Keys that a token sees, averaged over tokens and layers: half the sequence, less inside a window."""
    if not 0 < model.sliding_window < seq_length:
        return seq_length / 2
    windowed = model.sliding_window * (1 - model.sliding_window / (2 * seq_length))
    full_layers = model.num_hidden_layers // model.sliding_window_period / model.num_hidden_layers
    return full_layers * seq_length / 2 + (1 - full_layers) * windowed


def _block_forward(model: ModelSpec, block: Block, keys: float) -> float:
    """Forward FLOPs of one token in one block."""
    if block == "mamba":
        return _mamba_forward(model)
    core = _attention_core(model, keys) if block == "attention" else 0.0
    return 2.0 * _block_weights(model, block) + core


def _mamba_forward(model: ModelSpec) -> float:
    """Megatron-LM's ``mamba_layer_flops``: inner width 2h whatever the heads, and 7·2h·N for the scan."""
    h, state = model.hidden_size, model.ssm_state_size
    projected = 4 * h + 2 * model.mamba_n_groups * state + model.mamba_num_heads
    return 2.0 * h * projected + 7.0 * 2 * h * state + 2.0 * 2 * h * h


@lru_cache(maxsize=256)  # similar runs ask the same
def _megatron(model: ModelSpec, seq_length: float, vocab_size: int, keys: float) -> float:
    """Three forwards of the linear layers, the core over ``keys`` keys per token, and the logits.

    A prediction layer adds itself, its logits and (but for hybrids) its projection of [hidden, embedding] to
    hidden. An operator graph's products count three times for each sample.
    """
    if model.layers:
        return 3.0 * seq_length * graph_forward_flops(model)
    if model.is_encoder:
        return 3.0 * (_encoder_forward(model, seq_length) + _encoder_head(model, seq_length, vocab_size))
    blocks = Counter(block for layer in layer_blocks(model) for block in layer)
    predictions = model.num_nextn_predict_layers
    for block in prediction_blocks(model) if predictions else ():
        blocks[block] += predictions
    forward = sum(count * _block_forward(model, block, keys) for block, count in blocks.items())
    if not model.hybrid_layer_pattern:
        forward += predictions * 2.0 * 2 * model.hidden_size**2
    forward += (1 + predictions) * 2.0 * model.hidden_size * vocab_size
    return 3.0 * seq_length * forward


def _encoder_forward(model: ModelSpec, seq_length: float) -> float:
    """A sequence through all bidirectional layers, every token seeing all."""
    weights = attention_weights(model) + mlp_weights(model)
    token = 2.0 * weights + _attention_core(model, seq_length)
    return model.bidirectional_layers * seq_length * token


def _encoder_head(model: ModelSpec, seq_length: float, vocab_size: int) -> float:
    """Masked-language-model head of a text encoder; patches and classes of a vision transformer."""
    h = model.hidden_size
    if not model.image_size:
        return 2.0 * seq_length * h * (h + vocab_size)
    return 2.0 * h * (seq_length * model.num_channels * model.patch_size**2 + model.num_labels)


def _two_sided(model: ModelSpec, name: str, lengths: tuple[int, int], vocab_size: int) -> float:
    """One pair of sequences through encoder and decoder: three forwards of all products and cores."""
    if name not in ("megatron", "megatron-full"):
        raise ValueError(f"FLOP convention {name!r} describes no encoder–decoder: use 'megatron'")
    encoder, decoder = lengths
    own = decoder / 2.0 if name == "megatron" else float(decoder)
    kv = 2 * model.hidden_size * model.num_key_value_heads * model.head_dim  # of the encoder's tokens
    weights = 2 * attention_weights(model) - kv + mlp_weights(model)
    core = _attention_core(model, own) + _attention_core(model, encoder)
    layers = model.num_hidden_layers - model.num_encoder_layers
    forward = layers * (decoder * (2.0 * weights + core) + encoder * 2.0 * kv)
    logits = 2.0 * decoder * model.hidden_size * vocab_size
    return 3.0 * (_encoder_forward(model, encoder) + forward + logits)


def _megatron_causal(model: ModelSpec, seq_length: int, vocab_size: int) -> float:
    return _megatron(model, seq_length, vocab_size, _causal_keys(model, seq_length))


def _megatron_packed(model: ModelSpec, seq_length: int, vocab_size: int, documents: Documents) -> float:
    """Real tokens only, each seeing half of its own document: Σsᵢ² / (2·Σsᵢ) keys, less inside a window."""
    full, period = whole_mask(documents, seq_length, 0), model.sliding_window_period
    pairs = full.pairs
    if 0 < model.sliding_window < seq_length:
        full_layers = model.num_hidden_layers // period / model.num_hidden_layers if period > 1 else 0.0
        windowed = whole_mask(documents, seq_length, model.sliding_window)
        pairs = full_layers * full.pairs + (1 - full_layers) * windowed.pairs
    tokens = seq_length * filled(documents, seq_length)
    return _megatron(model, tokens, vocab_size, pairs / tokens)


def _megatron_full(model: ModelSpec, seq_length: int, vocab_size: int) -> float:
    return _megatron(model, seq_length, vocab_size, seq_length)


def _require_gpt(model: ModelSpec, convention: str) -> None:
    """The closed formulas of the Megatron papers hold for GPT's proportions only."""
    is_gpt = (
        model.attention_type == "mha"
        and not model.is_moe
        and not model.gated_mlp
        and not model.hybrid_layer_pattern
        and model.num_nextn_predict_layers == 0
        and model.intermediate_size == 4 * model.hidden_size
        and model.num_attention_heads * model.head_dim == model.hidden_size
    )
    if not is_gpt:
        raise ValueError(
            f"FLOP convention {convention!r} describes GPT layers only (multi-head attention, FFN of four "
            f"times the hidden size, no gate, no experts), which {model.name!r} has not: use 'megatron' or "
            f"'megatron-full'"
        )


def _narayanan_2021(model: ModelSpec, seq_length: int, vocab_size: int) -> float:
    """96·s·L·h²·(1 + s/(6h) + V/(16·L·h)): four forwards' worth of the layers, three of the logits."""
    _require_gpt(model, "narayanan-2021")
    s, L, h = seq_length, model.num_hidden_layers, model.hidden_size
    return 96.0 * s * L * h**2 * (1 + s / (6 * h) + vocab_size / (16 * L * h))


def _korthikanti_2022(model: ModelSpec, seq_length: int, vocab_size: int) -> float:
    """72·s·L·h²·(1 + s/(6h) + V/(12·L·h))."""
    _require_gpt(model, "korthikanti-2022")
    s, L, h = seq_length, model.num_hidden_layers, model.hidden_size
    return 72.0 * s * L * h**2 * (1 + s / (6 * h) + vocab_size / (12 * L * h))


def _korthikanti_2022_selective(model: ModelSpec, seq_length: int, vocab_size: int) -> float:
    """Model FLOPs plus the attention core's forward once more: 72·s·L·h²·(1 + s/(6h) + …) + 4·L·s²·h."""
    core = 4.0 * model.num_hidden_layers * seq_length**2 * model.hidden_size
    return _korthikanti_2022(model, seq_length, vocab_size) + core


def _attention_of_palm(model: ModelSpec, seq_length: int) -> float:
    """12·L·a·d·s per token: three times the full square, over the layers that attend."""
    layers = sum("attention" in blocks for blocks in layer_blocks(model))
    return layers * 3.0 * _attention_core(model, seq_length)


def _six_n(model: ModelSpec, seq_length: int, vocab_size: int) -> float:
    """6·N·s, N the parameters a token uses, embedding included; the vocabulary is never padded."""
    return 6.0 * count_parameters(model).active * seq_length


def _palm(model: ModelSpec, seq_length: int, vocab_size: int) -> float:
    """s·(6·N + 12·L·a·d·s)."""
    return _six_n(model, seq_length, vocab_size) + seq_length * _attention_of_palm(model, seq_length)


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            name="megatron",
            description="linear layers, logits, causal attention (half the square or the window)",
            source="NVIDIA/Megatron-LM num_floating_point_operations; Megatron-Bridge performance tables",
            sequence_flops=_megatron_causal,
        ),
        Convention(
            name="megatron-full",
            description="as megatron, attention over the full square",
            source="NVIDIA/Megatron-LM core r0.8; NVIDIA/NeMo 24.07 performance summary",
            sequence_flops=_megatron_full,
        ),
        Convention(
            name="dgxc",
            description="6 x (parameters of linear layers and logits) and attention over the full square",
            source="NVIDIA/dgxc-benchmarking model READMEs (but Grok-1's, which count as megatron)",
            sequence_flops=_megatron_full,
        ),
        Convention(
            name="narayanan-2021",
            description="hardware FLOPs of GPT with full recompute, attention over the full square",
            source="Narayanan et al. 2021 (arXiv 2104.04473), section 5.1",
            sequence_flops=_narayanan_2021,
            includes_recompute=True,
        ),
        Convention(
            name="korthikanti-2022",
            description="model FLOPs of GPT, attention over the full square",
            source="Korthikanti et al. 2022 (arXiv 2205.05198), appendix A equation 7",
            sequence_flops=_korthikanti_2022,
        ),
        Convention(
            name="korthikanti-2022-selective",
            description="hardware FLOPs of GPT with selective recompute of the attention core",
            source="Korthikanti et al. 2022 (arXiv 2205.05198), appendix A equation 8",
            sequence_flops=_korthikanti_2022_selective,
            includes_recompute=True,
        ),
        Convention(
            name="6n",
            description="6 x active parameters per token, attention not counted",
            source="Kaplan et al. 2020 (arXiv 2001.08361), section 2.1",
            sequence_flops=_six_n,
        ),
        Convention(
            name="palm-6n",
            description="6 x active parameters and 12 L h s per token: attention over the full square",
            source="Chowdhery et al. 2022 (PaLM, arXiv 2204.02311), appendix B",
            sequence_flops=_palm,
        ),
        Convention(
            name="mosaic",
            description="palm-6n, N with the tied embedding and learned positions",
            source="mosaicml/llm-foundry scripts/train/benchmarking/README.md",
            sequence_flops=_palm,
        ),
        Convention(
            name="megatron-packed",
            description="as megatron, attention inside documents of packed sequences, no padding",
            source="NVIDIA/Megatron-LM num_floating_point_operations, packed data: squares of real lengths",
            sequence_flops=_megatron_causal,
            packed=True,
        ),
    )
}
