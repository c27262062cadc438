"""One rank's share of a virtual stage: its layers, and the buckets that their gradients travel in.

Chunks of the same content are one object, within a run and across similar ones, so that what is known of one
(its sums, its memory) is kept by identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from simulator.graph.decoder import layer_kinds, prediction_head
from simulator.graph.ends import embedding, head
from simulator.graph.options import GraphOptions
from simulator.partition.data import Bucket, DataParallel
from simulator.partition.expert_layout import ExpertParallel
from simulator.partition.expert_load import router_load
from simulator.partition.layer_share import (
    LayerShare,
    Narrow,
    Split,
    share_decoder_layer,
    share_end,
    without_backward,
)
from simulator.partition.offload import offload
from simulator.partition.optimizer import parameter_bytes
from simulator.partition.recompute import in_units
from simulator.partition.stages import Chunk, split_stages
from simulator.spec.expert_load import ExpertLoad
from simulator.spec.model import ModelSpec
from simulator.spec.recompute import Recompute

_split_stages = lru_cache(maxsize=1024)(split_stages)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkShare:
    """One rank's share of a virtual stage."""

    layers: tuple[LayerShare, ...]
    buckets: tuple[Bucket, ...]

    @cached_property
    def parameters(self) -> float:
        """Elements held by this rank."""
        return sum(layer.parameters for layer in self.layers)

    @cached_property
    def expert_parameters(self) -> float:
        """Of them, those of routed experts."""
        return sum(layer.expert_parameters for layer in self.layers)

    @cached_property
    def replicated_parameters(self) -> float:
        """Of them, those that every rank of a tensor-parallel group holds."""
        return sum(layer.replicated_parameters for layer in self.layers)

    @cached_property
    def weight_bytes(self) -> float:
        """Weights held by this rank, in all formats."""
        return sum(layer.weight_bytes for layer in self.layers)

    @cached_property
    def has_preparation(self) -> bool:
        """Whether its weights are prepared before they are used."""
        return any(layer.preparation.steps for layer in self.layers)

    @cached_property
    def saved_bytes(self) -> float:
        """Activations of one microbatch kept until its backward pass."""
        return sum(layer.saved_bytes for layer in self.layers)

    @cached_property
    def flops(self) -> float:
        """FLOPs of one microbatch, recomputation included."""
        return sum(layer.flops for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How a run divides layers: all that a chunk's share depends on beside which layers it holds.

    ``narrow``: how layers are quantised but for the first and last ``wide`` ones. ``load`` and ``seed``
    decide how evenly the experts of each layer are asked for; ``experts`` are those of an even load.
    """

    model: ModelSpec
    opts: GraphOptions
    ends: Split
    graph_scope: tuple[str, ...]
    graphs: bool
    experts: ExpertParallel
    load: ExpertLoad
    seed: int
    recompute: Recompute
    narrow: Narrow | None
    wide: tuple[int, int]
    offloaded_layers: int
    narrow_gathers: bool
    data: DataParallel
    forward_only: bool

    def experts_of(self, layer: int) -> ExpertParallel:
        """How the experts of one layer are divided."""
        if not self.load.variation or not self.model.is_moe:
            return self.experts
        seed = (self.seed, layer)
        return replace(
            self.experts, load=router_load(self.load, self.experts.size, self.model.num_experts, seed=seed)
        )

    def narrow_of(self, layer: int) -> Narrow | None:
        """How a layer is quantised; ``None`` where it stays in 16 bits or more."""
        first, last = self.wide
        return self.narrow if first <= layer < self.model.num_hidden_layers - last else None


@lru_cache(maxsize=1024)
def share_chunks(
    division: Division, pp: int, vp: int, split: str | tuple[int, ...]
) -> tuple[ChunkShare, ...]:
    """A rank's share of every virtual stage. Raises ValueError where the split is impossible."""
    chunks, numbers = _distinct(division.model, pp, vp, split, _first_alike(division))
    shares = [_share_chunk(division, chunk, cut) for chunk, cut in chunks]
    return tuple([shares[number] for number in numbers])


@lru_cache(maxsize=1024)  # similar runs divide one model alike
def _distinct(
    model: ModelSpec, pp: int, vp: int, split: str | tuple[int, ...], like: tuple[int, ...]
) -> tuple[tuple[tuple[Chunk, bool], ...], tuple[int, ...]]:
    """The different chunks, of layers that stand for those ``like`` them, and which of them each stage is.

    Also of each whether it is the one whose gradients Megatron-LM cuts into buckets.
    """
    found: dict[tuple[Chunk, bool], int] = {}
    numbers = []
    for index, chunk in enumerate(stages_of(model, pp, vp, split)):
        alike = replace(chunk, layers=tuple([like[layer] for layer in chunk.layers]))
        numbers.append(found.setdefault((alike, index == 0), len(found)))
    return tuple(found), tuple(numbers)


def stages_of(model: ModelSpec, pp: int, vp: int, split: str | tuple[int, ...]) -> tuple[Chunk, ...]:
    """What each virtual stage of a model holds."""
    mtp = model.num_nextn_predict_layers
    return _split_stages(model.num_hidden_layers, pp, vp, split, mtp_layers=mtp)


@lru_cache(maxsize=1024)
def _first_alike(division: Division) -> tuple[int, ...]:
    """By layer, the first one of its kind, experts and precision."""
    first: dict[object, int] = {}
    return tuple(
        first.setdefault((kind, division.experts_of(layer), division.narrow_of(layer)), layer)
        for layer, kind in enumerate(layer_kinds(division.model))
    )


@lru_cache(maxsize=8192)
def _share_chunk(division: Division, chunk: Chunk, cut: bool) -> ChunkShare:
    """``cut``: the chunk is the one whose gradients Megatron-LM cuts into buckets."""
    model, opts, ends, data = division.model, division.opts, division.ends, division.data
    layers: list[LayerShare] = []
    if chunk.embedding:
        layers.append(share_end(embedding, model, opts, ends))
    layers += _decoder_layers(division, chunk)
    layers += _prediction_layers(division, chunk)
    if chunk.loss:
        last = share_end(head, model, opts, ends)
        if model.tie_word_embeddings and chunk.embedding:
            alone = last.replicated_parameters
            last = replace(last, parameters=alone, weight_bytes=alone * data.parameter_bytes)
        layers.append(last)
        layers += [share_end(prediction_head, model, opts, ends)] * model.num_nextn_predict_layers
    buckets = (
        *data.buckets(tuple(x.parameters - x.expert_parameters for x in layers), cut=cut),
        *data.buckets(tuple(x.expert_parameters for x in layers), cut=cut, axis="edp"),
    )
    if division.narrow_gathers:
        buckets = tuple(replace(b, narrow_parameters=_narrow_parameters(b, layers)) for b in buckets)
    if division.forward_only:
        layers = [without_backward(layer) for layer in layers]
    return ChunkShare(layers=tuple(layers), buckets=buckets)


def _decoder_layers(division: Division, chunk: Chunk) -> list[LayerShare]:
    model, recompute = division.model, division.recompute
    kinds = layer_kinds(model)
    layers = []
    known: dict[tuple[int, bool], LayerShare] = {}
    for position, number in enumerate(chunk.layers):
        full = _is_recomputed(recompute, position)
        if (number, full) not in known:
            known[number, full] = _decoder_layer(division, number, kinds[number], full=full)
        layer = known[number, full]
        if number and number == model.num_encoder_layers and not chunk.embedding:
            layer = _with_embedding(layer, division)
        layers.append(layer)
    if recompute.granularity == "full" and recompute.method == "uniform":
        layers = in_units(layers, recompute.num_layers)
    return offload(layers, division.offloaded_layers)


def _decoder_layer(division: Division, number: int, kind: object, *, full: bool) -> LayerShare:
    """``kind`` ``None`` is a multi-token-prediction layer."""
    split = division.ends._replace(
        experts=division.experts_of(number), graph_scope=division.graph_scope, graphs=division.graphs
    )
    model, opts, narrow = division.model, division.opts, division.narrow_of(number)
    return share_decoder_layer(model, opts, kind, split, division.recompute, full, narrow)


def _prediction_layers(division: Division, chunk: Chunk) -> list[LayerShare]:
    """A chunk's multi-token-prediction layers. Apart from the embedding they hold a copy of its weights."""
    if not chunk.mtp:
        return []
    last, full = division.model.num_hidden_layers - 1, division.recompute.granularity == "full"
    layer = _decoder_layer(division, last, None, full=full)
    layers = [layer] * chunk.mtp
    if not chunk.embedding:
        layers[0] = _with_embedding(layer, division)
    return layers


def _with_embedding(layer: LayerShare, division: Division) -> LayerShare:
    """The layer with a copy of the embedding's weights, which it looks tokens up in."""
    copy = division.opts.vocab_size * division.model.hidden_size / division.ends.tensor.size
    weights = layer.weight_bytes + copy * parameter_bytes(division.opts.dtype)
    return replace(layer, parameters=layer.parameters + copy, weight_bytes=weights)


def _narrow_parameters(bucket: Bucket, layers: Sequence[LayerShare]) -> float:
    """Quantised parameters of a bucket; MXFP8's two copies are made after a gather in bf16 instead."""
    held = [layer for layer in layers[bucket.first_layer : bucket.stop_layer] if layer.quantized_parameters]
    experts = sum(layer.expert_parameters for layer in held)
    if bucket.axis == "edp":
        return experts
    return sum(layer.quantized_parameters for layer in held) - experts


def _is_recomputed(recompute: Recompute, position: int) -> bool:
    """Whether full recompute covers a chunk's layer: all of them (uniform) or the first n (block)."""
    if recompute.granularity != "full":
        return False
    return recompute.method == "uniform" or position < recompute.num_layers
