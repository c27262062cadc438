"""The layers of a decoder in order: which blocks each is made of, and their graph.

A layer's *kind* is all that tells it from another layer of the same model, so layers of one kind are built
once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from simulator.graph.blocks import Block, layer_blocks, prediction_blocks
from simulator.graph.encoder import bidirectional_attention, bridge, cross_attention
from simulator.graph.ends import embedding, head
from simulator.graph.experts import experts_block
from simulator.graph.layer import LayerGraph, Node, Region, elementwise, linear
from simulator.graph.mamba import mamba_block
from simulator.graph.mla import latent_attention_block
from simulator.graph.operator_graph import boundary_bytes, graph_layer, graph_layers
from simulator.graph.options import GraphOptions
from simulator.graph.transformer import ACTIVATION_BYTES, activation, attention_block, mlp_block, norm
from simulator.spec.model import ModelSpec
from simulator.spec.operator_graph import PlacedLayer

BlockGraph = Callable[[ModelSpec, GraphOptions], tuple[Node, ...]]

PARTS: dict[Block, BlockGraph] = {
    "mlp": mlp_block,
    "experts": experts_block,
    "mamba": mamba_block,
    "bidirectional": bidirectional_attention,
    "cross": cross_attention,
}


class LayerKind(NamedTuple):
    """A layer's blocks in order, and the window of its attention (0: full).

    ``first_decoder``: the encoder's end and the decoder's look-up come before it.
    """

    blocks: tuple[Block, ...]
    window: int = 0
    first_decoder: bool = False

    @property
    def name(self) -> str:
        """A short name, for programs and traces."""
        first = "first " if self.first_decoder else ""
        return first + "+".join(self.blocks) + (f" window {self.window}" if self.window else "")


@lru_cache(maxsize=256)
def layer_kinds(model: ModelSpec) -> tuple[LayerKind, ...] | tuple[PlacedLayer, ...]:
    """The kind of every layer, multi-token-prediction layers not included."""
    if model.layers:
        return graph_layers(model)
    return tuple(
        LayerKind(blocks, _window(model, number), number > 0 and number == model.num_encoder_layers)
        for number, blocks in enumerate(layer_blocks(model))
    )


def prediction_kind(model: ModelSpec) -> LayerKind:
    """The kind of the layer inside a multi-token-prediction layer: that of the last one."""
    return LayerKind(prediction_blocks(model), _window(model, model.num_hidden_layers - 1))


def _window(model: ModelSpec, number: int) -> int:
    """Every ``sliding_window_period``-th layer is full, the last of each period."""
    full = (number + 1) % model.sliding_window_period == 0
    return 0 if full and model.sliding_window_period > 1 else model.sliding_window


def model_layer(model: ModelSpec, opts: GraphOptions, kind: LayerKind | PlacedLayer) -> LayerGraph:
    """One layer of any model."""
    return graph_layer(kind, opts) if isinstance(kind, PlacedLayer) else decoder_layer(model, opts, kind)


def decoder_layer(model: ModelSpec, opts: GraphOptions, kind: LayerKind) -> LayerGraph:
    """One transformer layer (pre-norm)."""
    entering = layer_input(model, opts, kind)
    before: tuple[Node, ...] = ()
    if "cross" in kind.blocks:
        opts = opts.of_decoder
    if kind.first_decoder:
        before = bridge(model, opts, embedding(model, opts))
    nodes = _blocks(model, replace(opts, window=kind.window), kind)
    return LayerGraph(kind=kind.name, nodes=(*before, *nodes), input_bytes=entering)


def layer_input(model: ModelSpec, opts: GraphOptions, kind: LayerKind | PlacedLayer) -> float:
    """Bytes of what enters a layer, whole. Decoder layers hand the encoder's output on."""
    if isinstance(kind, PlacedLayer):
        return boundary_bytes(kind, opts)
    tokens = opts.tokens
    if "cross" in kind.blocks and not kind.first_decoder:
        tokens += opts.of_decoder.tokens
    return tokens * model.hidden_size * ACTIVATION_BYTES


def prediction_layer(model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """One multi-token-prediction layer (DeepSeek-V3, arXiv 2412.19437, section 2.2).

    Embedding of the next token, norms of both inputs, projection of both to the hidden size, a transformer
    layer, a final norm. Its logits and loss are the head's work, with the head's weights.
    """
    kind = prediction_kind(model)
    look_up = tuple(replace(node, parameters=0.0) for node in embedding(model, opts).nodes[:1])
    return LayerGraph(
        kind=f"prediction {kind.name}",
        nodes=(
            *look_up,
            norm(model, opts, "mtp_embedding_norm"),
            norm(model, opts, "mtp_hidden_norm"),
            *_joint_projection(model, opts),
            *_blocks(model, replace(opts, window=kind.window), kind),
        ),
        input_bytes=2 * opts.tokens * model.hidden_size * ACTIVATION_BYTES,
    )


def prediction_head(model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """Norm, logits and loss of a multi-token-prediction layer; the logits' weights are those of the model's
    head.
    """
    whole = head(model, opts)
    return replace(
        whole, kind="prediction head", nodes=tuple(replace(node, parameters=0.0) for node in whole.nodes)
    )


def _joint_projection(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """[hidden, embedding] side by side, and their column-parallel projection to the hidden size, gathered."""
    size = opts.tokens * model.hidden_size * ACTIVATION_BYTES
    join = elementwise(
        "mtp_join",
        "residual",
        module="mtp",
        region=Region.SEQUENCE,
        forward=(2 * size, 2 * size),
        backward=(2 * size, 2 * size),
    )
    project = linear(
        "mtp_projection",
        module="mtp",
        region=Region.COLUMN,
        tokens=opts.tokens,
        inputs=2 * model.hidden_size,
        outputs=model.hidden_size,
        dtype=opts.dtype,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(
            activation("mtp_projection.input", 2 * opts.tokens * model.hidden_size, Region.SEQUENCE, "mtp"),
        ),
    )
    return (join, project)


def _blocks(model: ModelSpec, opts: GraphOptions, kind: LayerKind) -> tuple[Node, ...]:
    return tuple(node for block in kind.blocks for node in _block(model, block)(model, opts))


def _block(model: ModelSpec, block: Block) -> BlockGraph:
    if block == "attention":
        return latent_attention_block if model.attention_type == "mla" else attention_block
    return PARTS[block]
