"""One rank's share of a layer: what it computes, keeps and holds, in one microbatch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from operator import is_
from typing import NamedTuple

from simulator.graph.adapters import adapt
from simulator.graph.decoder import LayerKind, model_layer, prediction_layer
from simulator.graph.full_precision import in_full_precision
from simulator.graph.layer import LayerGraph, Node, Region
from simulator.graph.narrow_kept import keep_narrow
from simulator.graph.operators import Gemm, GroupedGemm
from simulator.graph.options import GraphOptions
from simulator.graph.precision import Recipe
from simulator.graph.quantized import quantize_layer
from simulator.partition.channels import share_channels
from simulator.partition.context import SharedAttention, share_attention
from simulator.partition.context_group import ContextParallel
from simulator.partition.expert import EXPERT_REGIONS, share_node
from simulator.partition.expert_layout import ExpertParallel
from simulator.partition.fresh_gradients import without_accumulation
from simulator.partition.graph_scope import in_scope, with_copies
from simulator.partition.grid import share_on_grid
from simulator.partition.optimizer import PARAMETER_BYTES, Matrix, parameter_bytes
from simulator.partition.quantization import (
    cached_weight_bytes,
    quantized_weights,
    weight_preparation,
)
from simulator.partition.recompute import backward_segment, forward_segment, requantizing, saved_bytes
from simulator.partition.scan import share_scan
from simulator.partition.segment import COMPUTE, Segment, Step, split_gradients
from simulator.partition.tensor import TensorParallel, shard
from simulator.spec.model import ModelSpec
from simulator.spec.operator_graph import PlacedLayer
from simulator.spec.recompute import Recompute
from simulator.spec.run import FULL_PRECISIONS

NOTHING = Segment(())
GATHERED = frozenset({Region.COLUMN, Region.ROW, Region.EMBEDDING})


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerShare:
    """One rank's share of a layer, the embedding or the head, for one microbatch.

    Equal layers are one object, so that what is known of one (its time, its memory) is kept by identity.
    """

    kind: str
    forward: Segment
    backward: Segment
    parameters: float  # that are trained
    replicated_parameters: float  # of them, held by every rank of the TP group
    saved_bytes: float  # kept from forward to backward
    working_bytes: float  # kept only while this layer's recomputed forward and its backward run
    gathered_bytes: float  # the largest activation gathered over the TP group for one operator
    expert_parameters: float = 0.0  # of ``parameters``, those of routed experts
    quantized_parameters: float = 0.0  # of ``parameters``, those used in a narrow format
    weight_bytes: float = 0.0  # of all copies of all weights, frozen ones too, that the layer computes with
    matrices: tuple[Matrix, ...] = ()  # weights that a matrix optimizer takes as they are, embeddings apart
    expert_matrices: tuple[Matrix, ...] = ()
    preparation: Segment = NOTHING  # once a step, before the first forward: the weights quantised
    nodes: tuple[Node, ...] = field(default=(), compare=False, repr=False)  # what it was made of

    @property
    def input_gradient(self) -> Segment:
        """Of ``backward``, what the layer before waits for, for schedules that run its parts apart."""
        return self._gradients[0]

    @property
    def weight_gradient(self) -> Segment:
        """The rest of ``backward``."""
        return self._gradients[1]

    @cached_property
    def _gradients(self) -> tuple[Segment, Segment]:
        return split_gradients(self.backward)

    @cached_property
    def flops(self) -> float:
        """FLOPs of both passes, recomputation included."""
        return self.forward.flops + self.backward.flops


@lru_cache(maxsize=4096)
def without_backward(layer: LayerShare) -> LayerShare:
    """A layer that is only evaluated: what it would keep for a backward pass goes when it is done."""
    return replace(
        layer,
        backward=NOTHING,
        saved_bytes=0.0,
        working_bytes=layer.saved_bytes + layer.working_bytes,
    )


class Split(NamedTuple):
    """How one layer is divided inside a pipeline stage."""

    tensor: TensorParallel
    experts: ExpertParallel
    context: ContextParallel = ContextParallel()
    fresh_gradient_bytes: float = 0.0  # of a weight gradient that is written, not added; 0: added
    graph_scope: tuple[str, ...] = ()  # parts of a layer that its CUDA graph holds; empty: all
    graphs: bool = False  # there is one

    def share(self, node: Node) -> Node:
        """One rank's share of a node."""
        if not in_scope(node.module, self.graph_scope):
            node = replace(node, captured=False)
        if self.fresh_gradient_bytes:
            node = without_accumulation(node, self.fresh_gradient_bytes)
        if self.tensor.grid is not None:
            return share_on_grid(node, self.tensor.grid)
        if node.region is Region.CHANNEL:
            return share_channels(node, self.tensor.size)
        if node.region in EXPERT_REGIONS:
            return share_node(node, self.tensor, self.experts)
        return share_scan(share_attention(shard(node, self.tensor), self.context), self.context.size)


class Narrow(NamedTuple):
    """How a layer's products are quantised; ``only_copy``: their weights exist in no other format.

    ``attention``: the core runs in fp8 too. ``kept``: activations kept in fewer bits. ``pad_rows``: experts'
    rows arrive in any number.
    """

    recipe: Recipe
    fuse_norm: bool
    only_copy: bool
    attention: bool
    kept: tuple[str, ...] = ()
    pad_rows: bool = False


class _Divided(NamedTuple):
    """A layer, a rank's share of its nodes, and what they do forward."""

    layer: LayerGraph
    nodes: tuple[Node, ...]
    forward: Segment


def _divided(layer: LayerGraph, split: Split) -> _Divided:
    nodes = tuple(split.share(node) for node in layer.nodes)
    return _Divided(layer, nodes, forward_segment(nodes, split.tensor))


@lru_cache(maxsize=4096)
def share_end(
    build: Callable[[ModelSpec, GraphOptions], LayerGraph],
    model: ModelSpec,
    opts: GraphOptions,
    split: Split,
) -> LayerShare:
    """A rank's share of the embedding or a head, which ``build`` makes."""
    layer = _in_its_precision(adapt(build(model, opts), opts), model, opts)
    return _share_layer(_divided(layer, split), split, dtype=opts.dtype)


@lru_cache(maxsize=4096)
def share_decoder_layer(
    model: ModelSpec,
    opts: GraphOptions,
    kind: LayerKind | PlacedLayer | None,
    split: Split,
    recompute: Recompute,
    full: bool,
    narrow: Narrow | None,
) -> LayerShare:
    """A rank's share of a layer; ``kind`` ``None`` is a multi-token-prediction layer."""
    divided = _divided_decoder_layer(model, opts, kind, split, narrow)
    share = _share_layer(
        divided,
        split,
        full=full,
        modules=frozenset(recompute.modules if recompute.granularity == "selective" else ()),
        early_stop=bool(recompute.early_stop),
        dtype=opts.dtype,
    )
    return share if narrow is None else _with_weights(share, divided.nodes, narrow)


@lru_cache(maxsize=1024)
def _divided_decoder_layer(
    model: ModelSpec,
    opts: GraphOptions,
    kind: LayerKind | PlacedLayer | None,
    split: Split,
    narrow: Narrow | None,
) -> _Divided:
    """In common to all that may be recomputed of it."""
    layer = _decoder_layer(model, opts, kind, narrow)
    if split.graphs:
        layer = with_copies(layer, model, split.graph_scope, dynamic=split.experts.synchronises)
    return _divided(layer, split)


@lru_cache(maxsize=256)
def _decoder_layer(
    model: ModelSpec, opts: GraphOptions, kind: LayerKind | PlacedLayer | None, narrow: Narrow | None
) -> LayerGraph:
    layer = prediction_layer(model, opts) if kind is None else model_layer(model, opts, kind)
    layer = _in_its_precision(adapt(layer, opts), model, opts)
    if narrow is None:
        return layer
    layer = quantize_layer(
        layer,
        narrow.recipe,
        fuse_norm=narrow.fuse_norm,
        attention=narrow.attention,
        pad_rows=narrow.pad_rows,
    )
    return keep_narrow(layer, narrow.recipe, narrow.kept)


def _in_its_precision(layer: LayerGraph, model: ModelSpec, opts: GraphOptions) -> LayerGraph:
    """Transformers are built in 16 bits; operator graphs as wide as they run."""
    wide = opts.dtype in FULL_PRECISIONS and not model.layers
    return in_full_precision(layer) if wide else layer


def _with_weights(share: LayerShare, nodes: tuple[Node, ...], narrow: Narrow) -> LayerShare:
    """The quantised copies of a layer's weights: their bytes, and how they come about once a step."""
    quantized = sum(quantized_weights(node) for node in nodes)
    held = share.weight_bytes / PARAMETER_BYTES
    wide = held - (quantized if narrow.only_copy else 0.0)
    ops = (op for node in nodes for op in weight_preparation(node, only_copy=narrow.only_copy))
    return replace(
        share,
        quantized_parameters=sum(quantized_weights(node) for node in nodes if node.trained),
        weight_bytes=wide * PARAMETER_BYTES + quantized * cached_weight_bytes(narrow.recipe),
        preparation=Segment(tuple(Step(op, COMPUTE) for op in ops)),
    )


def _share_layer(
    divided: _Divided,
    split: Split,
    *,
    full: bool = False,
    modules: frozenset[str] = frozenset(),
    early_stop: bool = False,
    dtype: str = "bf16",
) -> LayerShare:
    tp, layer = split.tensor, divided.layer
    nodes = requantizing(divided.nodes, modules)
    same = all(map(is_, nodes, divided.nodes))
    none: frozenset[str] = frozenset()
    everything = saved_bytes(layer, nodes, tp, full=False, modules=none)
    saved = saved_bytes(layer, nodes, tp, full=full, modules=modules)
    backward = backward_segment(nodes, tp, full=full, modules=modules, early_stop=early_stop)
    held = sum(node.parameters + node.replicated_parameters for node in nodes)
    trained = [node for node in nodes if node.trained]
    return LayerShare(
        kind=f"{layer.kind}+recompute" if full else layer.kind,
        forward=divided.forward if same else forward_segment(nodes, tp),
        backward=backward,
        parameters=sum(node.parameters + node.replicated_parameters for node in trained),
        weight_bytes=held * parameter_bytes(dtype),
        replicated_parameters=sum(node.replicated_parameters for node in trained),
        saved_bytes=saved,
        working_bytes=max(0.0, everything - saved),
        gathered_bytes=max(_gathered_bytes(nodes, tp), _shared_bytes(nodes)),
        expert_parameters=sum(node.parameters for node in trained if node.region in EXPERT_REGIONS),
        matrices=_matrices(node for node in trained if node.region not in EXPERT_REGIONS),
        expert_matrices=_matrices(node for node in trained if node.region in EXPERT_REGIONS),
        nodes=nodes,
    )


def _shared_bytes(nodes: tuple[Node, ...]) -> float:
    """Keys and values of other ranks of the CP group."""
    return max((node.buffer_bytes for node in nodes if isinstance(node, SharedAttention)), default=0.0)


def _gathered_bytes(nodes: tuple[Node, ...], tp: TensorParallel) -> float:
    """The largest activation gathered over the TP group."""
    if not tp.sequence or tp.size == 1:
        return 0.0
    return max((node.boundary_bytes for node in nodes if node.region in GATHERED), default=0.0)


def _matrices(nodes: Iterable[Node]) -> tuple[Matrix, ...]:
    return tuple(
        Matrix(rows=op.n, columns=op.k, count=op.groups if isinstance(op, GroupedGemm) else op.batch)
        for node in nodes
        if isinstance(op := node.forward, Gemm | GroupedGemm) and node.parameters and node.module != "head"
    )
