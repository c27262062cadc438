"""The whole division of a run: what each virtual stage computes, keeps, sends and reduces on one rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from simulator.graph.decoder import layer_input, layer_kinds, prediction_head
from simulator.graph.ends import embedding, head
from simulator.graph.operators import DTYPE_BYTES, Collective
from simulator.graph.options import GraphOptions
from simulator.graph.precision import find_recipe
from simulator.partition.context import ContextParallel
from simulator.partition.data import FULLY_SHARDED, Bucket, DataParallel, Sharding
from simulator.partition.document_load import MicrobatchLoads, microbatch_loads
from simulator.partition.expert_layout import ExpertParallel, expert_parallel
from simulator.partition.grid import Grid
from simulator.partition.layer_share import (
    LayerShare,
    Narrow,
    Split,
    share_decoder_layer,
    share_end,
    without_backward,
)
from simulator.partition.offload import offload
from simulator.partition.optimizer import Optimizer, parameter_bytes
from simulator.partition.recompute import in_units
from simulator.partition.stages import Chunk, split_stages
from simulator.partition.state_offload import StateOffload
from simulator.partition.tensor import TensorParallel
from simulator.spec.run import FULL_PRECISIONS, NARROW_PRECISIONS, Parallelism, Recompute, RunSpec

VOCABULARY_MULTIPLE = 128  # Megatron-LM pads the vocabulary to a multiple of 128·tp


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkShare:
    """One rank's share of a virtual stage."""

    index: int
    layers: tuple[LayerShare, ...]
    buckets: tuple[Bucket, ...]

    @property
    def parameters(self) -> float:
        """Elements held by this rank."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def expert_parameters(self) -> float:
        """Of them, those of routed experts."""
        return sum(layer.expert_parameters for layer in self.layers)

    @property
    def weight_bytes(self) -> float:
        """Weights held by this rank, in all formats."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def saved_bytes(self) -> float:
        """Activations of one microbatch kept until its backward pass."""
        return sum(layer.saved_bytes for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything the engine and the memory model need, with no time in it.

    ``chunks`` are indexed by virtual stage. ``message_bytes`` is one boundary activation as a rank sends it,
    the largest where they differ; then ``crossings`` are those from each device to the next.
    ``message_gather`` is the all-gather that follows it where the receiver needs it whole.
    """

    chunks: tuple[ChunkShare, ...]
    data: DataParallel
    tensor: TensorParallel
    message_bytes: float
    message_gather: Collective | None
    tied_embedding_bytes: float  # gradient that first and last stage sum each step; 0 when there is one stage
    microbatches: int
    padded_vocab_size: int
    crossings: tuple[float, ...] = ()
    loads: MicrobatchLoads | None = None  # of attention, where microbatches differ
    forward_only: bool = False  # no backward passes, nothing kept for them, no update

    def crossing_bytes(self, device: int) -> float:
        """What a rank of a device sends to the next one, for one microbatch."""
        return self.crossings[device] if device < len(self.crossings) else self.message_bytes

    @property
    def flops_per_replica(self) -> float:
        """FLOPs that one data-parallel replica executes in a step, recomputation included."""
        one = sum(
            layer.forward.flops + layer.backward.flops for chunk in self.chunks for layer in chunk.layers
        )
        return one * self.microbatches * self.tensor.size


def plan_run(run: RunSpec, *, copies: int = 1, forward_only: bool = False) -> RunPlan:
    """Divides a run, whose schedule has each stage ``copies`` times in a pipeline (DualPipe: 2).

    ``forward_only``: it has no backward passes.

    Raises :class:`ValueError` where a split is impossible (the spec's rules catch these first).
    """
    p = run.parallelism
    tp = TensorParallel(
        size=p.tp,
        sequence=run.sequence_parallel,
        overlap=run.runtime.tp_overlap,
        grid=_grid(run),
        overlap_dgrad=run.runtime.tp_dgrad_overlap,
    )
    opts, data = _graph_options(run), _data_parallel(run, copies)
    mtp = run.model.num_nextn_predict_layers
    stages = split_stages(run.model.num_hidden_layers, p.pp, p.vp, p.stage_split, mtp_layers=mtp)
    chunks = tuple(_share_chunk(index, chunk, run, opts, tp, data) for index, chunk in enumerate(stages))
    boundaries = _boundaries(run, opts, stages)
    width = DTYPE_BYTES["fp32" if run.training.precision in FULL_PRECISIONS else "bf16"]
    boundary = max(boundaries, default=opts.tokens * run.model.hidden_size * width)
    scattered = tp.splits_tokens or run.runtime.scatter_gather or bool(run.model.layers)
    sent = tp.size if scattered else 1
    tied = (run.model.tie_word_embeddings or mtp or run.model.num_encoder_layers) and p.pp > 1
    if forward_only:
        chunks = tuple(replace(c, layers=tuple(map(without_backward, c.layers))) for c in chunks)
    return RunPlan(
        chunks=chunks,
        data=data,
        tensor=tp,
        message_bytes=boundary / sent,
        crossings=tuple(size / sent for size in boundaries),
        message_gather=_message_gather(boundary, tp, scattered, channels=bool(run.model.layers)),
        tied_embedding_bytes=opts.vocab_size * run.model.hidden_size / tp.size * data.grad_bytes
        if tied and opts.lora is None
        else 0.0,
        microbatches=run.microbatches,
        padded_vocab_size=opts.vocab_size,
        loads=_loads(run),
        forward_only=forward_only,
    )


def _grid(run: RunSpec) -> Grid | None:
    """The grid of a tensor-parallel group that is one."""
    p, t = run.parallelism, run.training
    if p.tp_mode == "1d" or p.tp == 1:
        return None
    side, _, depth = p.tp_grid
    return Grid(mode=p.tp_mode, side=side, depth=depth, tokens=t.micro_batch_size * t.seq_length)


def _graph_options(run: RunSpec) -> GraphOptions:
    p, t = run.parallelism, run.training
    return GraphOptions(
        batch=t.micro_batch_size,
        seq=t.seq_length,
        decoder_seq=t.decoder_seq_length,
        context=p.cp,
        dtype="bf16" if t.precision in NARROW_PRECISIONS else t.precision,
        vocab_size=pad_vocabulary(run.model.vocab_size, p.tp),
        flash=run.runtime.attention != "unfused",
        grad_bytes=DTYPE_BYTES[t.grad_dtype],
        fused_accumulation=run.runtime.gradient_accumulation_fusion,
        permute_fusion=run.runtime.moe_permute_fusion,
        router_fusion=run.runtime.moe_router_fusion,
        shared_expert_overlap=run.runtime.moe_shared_expert_overlap,
        stack=run.runtime.software,
        loss_fusion=run.runtime.cross_entropy_fusion,
        loss_compiled=run.runtime.loss_compilation,
        lora=run.training.lora if run.training.lora.rank else None,
        documents=run.documents,
    )


def _data_parallel(run: RunSpec, copies: int) -> DataParallel:
    p, t = run.parallelism, run.training
    return DataParallel(
        replicas=run.dp * p.cp,
        expert_replicas=run.gpus // (p.pp * p.ep * (p.etp or p.tp)) if run.model.is_moe else 0,
        zero=p.zero,
        grad_dtype=t.grad_dtype,
        bucket_elements=run.runtime.ddp_bucket_elements,
        optimizer=_optimizer(run),
        loss_scaling=t.precision == "fp16",
        average_in_collective=run.runtime.average_in_collective,
        model_copies=copies,
        shard_ranks=run.shard_size * copies,
        cut_all=run.runtime.ddp_buckets == "torch" or p.zero == 2,
        sharding=_sharding(p),
        offload=StateOffload(
            optimizer=p.offload.optimizer,
            parameters=p.offload.parameters,
            sharers=min(run.gpus, run.cluster.gpus_per_node),
        ),
    )


def _context(run: RunSpec) -> ContextParallel:
    p = run.parallelism
    return ContextParallel(
        size=p.cp,
        method=p.cp_method,
        inner=p.cp_inner or 1,
        documents=run.documents,
        whole_sequences=run.cp_slices == "sequence",
    )


def _loads(run: RunSpec) -> MicrobatchLoads | None:
    """How microbatches differ. Replicas meet in each layer where they share parameters or experts."""
    if run.documents is None:
        return None
    p, model = run.parallelism, run.model
    experts = p.ep * (p.etp or p.tp) // (p.tp * p.cp) if model.is_moe else 1
    sharded = p.zero == FULLY_SHARDED and p.gathered_until != "step"
    shards = run.shard_size // p.cp if sharded else 1
    window = model.sliding_window if model.sliding_window_period <= 1 else 0
    return microbatch_loads(
        run.documents,
        run.training.seq_length,
        window if window < run.training.seq_length else 0,
        _context(run).token_ranks,
        run.training.micro_batch_size,
        whole_sequences=run.cp_slices == "sequence",
        microbatches=run.microbatches,
        depth=(p.pp - 1) / p.vp,
        replicas=run.dp,
        meeting=min(run.dp, max(1, experts, shards)),
        axis="ep" if experts > shards else "dp",
    )


def _optimizer(run: RunSpec) -> Optimizer:
    """PyTorch's own Adam works operator by operator unless asked otherwise.

    Weights in fp32 need no master.
    """
    t, asked = run.training, run.runtime.optimizer_fusion
    wide = t.precision in FULL_PRECISIONS
    return Optimizer(
        name=t.optimizer,
        master="none" if wide else t.master_weights,
        parameter_bytes=parameter_bytes(t.precision),
        moment_dtype=t.moment_dtype,
        fused=run.runtime.software == "megatron" if asked is None else asked,
    )


def _sharding(p: Parallelism) -> Sharding:
    return Sharding(
        keep=p.gathered_until,
        reduce=p.gradients_reduced,
        prefetch=p.fsdp.prefetch,
        buffers=p.fsdp.buffers,
    )


def pad_vocabulary(vocab_size: int, tp: int) -> int:
    """Rows of the embedding after padding to a multiple of 128·tp."""
    multiple = VOCABULARY_MULTIPLE * tp
    return -(-vocab_size // multiple) * multiple


def _boundaries(run: RunSpec, opts: GraphOptions, stages: Sequence[Chunk]) -> tuple[float, ...]:
    """What leaves each device where boundaries differ, whole; the last one sends nothing."""
    if not (run.model.layers or run.model.num_encoder_layers):
        return ()
    kinds = layer_kinds(run.model)
    return tuple(layer_input(run.model, opts, kinds[chunk.layers[0]]) for chunk in stages[1:])


def _message_gather(
    boundary: float, tp: TensorParallel, scattered: bool, *, channels: bool
) -> Collective | None:
    """Scatter–gather p2p (Narayanan 2021, section 4.1): each rank sends 1/t, the receivers gather over
    NVLink.
    """
    if not scattered or tp.splits_tokens or tp.size == 1 or channels:
        return None
    return Collective(name="message.all_gather", kind="all_gather", axis="tp", size_bytes=boundary)


def _share_chunk(
    index: int, chunk: Chunk, run: RunSpec, opts: GraphOptions, tp: TensorParallel, data: DataParallel
) -> ChunkShare:
    layers: list[LayerShare] = []
    ends = Split(tp, ExpertParallel(), _context(run), data.fresh_gradient_bytes)
    if chunk.embedding:
        layers.append(share_end(embedding, run.model, opts, ends))
    layers += _decoder_layers(chunk, run, opts, ends)
    layers += _prediction_layers(chunk, run, opts, ends)
    if chunk.loss:
        last = share_end(head, run.model, opts, ends)
        if run.model.tie_word_embeddings and chunk.embedding:
            alone = last.replicated_parameters
            last = replace(last, parameters=alone, weight_bytes=alone * data.parameter_bytes)
        layers.append(last)
        layers += [share_end(prediction_head, run.model, opts, ends)] * run.model.num_nextn_predict_layers
    buckets = (
        *data.buckets(tuple(x.parameters - x.expert_parameters for x in layers), cut=index == 0),
        *data.buckets(tuple(x.expert_parameters for x in layers), cut=index == 0, axis="edp"),
    )
    if run.training.fp8_param_gather and run.training.precision == "fp8":
        buckets = tuple(replace(b, narrow_parameters=_narrow_parameters(b, layers)) for b in buckets)
    return ChunkShare(index=index, layers=tuple(layers), buckets=buckets)


def _decoder_layers(chunk: Chunk, run: RunSpec, opts: GraphOptions, ends: Split) -> list[LayerShare]:
    kinds, recompute = layer_kinds(run.model), _recompute(run)
    layers = []
    equal: dict[object, LayerShare] = {}  # a model's own hash is slow
    for position, number in enumerate(chunk.layers):
        experts, full = expert_parallel(run, number), _is_recomputed(recompute, position)
        narrow = _narrow(run, number)
        key = (kinds[number], experts, full, narrow)
        if key not in equal:
            split = ends._replace(experts=experts, graph_scope=run.runtime.cuda_graph_scope)
            equal[key] = share_decoder_layer(run.model, opts, kinds[number], split, recompute, full, narrow)
        layer = equal[key]
        if number and number == run.model.num_encoder_layers and not chunk.embedding:
            layer = _with_embedding(layer, run, opts, ends)
        layers.append(layer)
    if recompute.granularity == "full" and recompute.method == "uniform":
        layers = in_units(layers, recompute.num_layers)
    return offload(layers, run.training.activation_offload_layers)


def _prediction_layers(chunk: Chunk, run: RunSpec, opts: GraphOptions, ends: Split) -> list[LayerShare]:
    """A chunk's multi-token-prediction layers. Apart from the embedding they hold a copy of its weights."""
    if not chunk.mtp:
        return []
    last = run.model.num_hidden_layers - 1
    recompute = _recompute(run)
    full = recompute.granularity == "full"
    split = ends._replace(experts=expert_parallel(run, last), graph_scope=run.runtime.cuda_graph_scope)
    layer = share_decoder_layer(run.model, opts, None, split, recompute, full, _narrow(run, last))
    layers = [layer] * chunk.mtp
    if not chunk.embedding:
        layers[0] = _with_embedding(layer, run, opts, ends)
    return layers


def _with_embedding(layer: LayerShare, run: RunSpec, opts: GraphOptions, ends: Split) -> LayerShare:
    """The layer with a copy of the embedding's weights, which it looks tokens up in."""
    copy = opts.vocab_size * run.model.hidden_size / ends.tensor.size
    weights = layer.weight_bytes + copy * parameter_bytes(opts.dtype)
    return replace(layer, parameters=layer.parameters + copy, weight_bytes=weights)


def _narrow_parameters(bucket: Bucket, layers: Sequence[LayerShare]) -> float:
    """Quantised parameters of a bucket; MXFP8's two copies are made after a gather in bf16 instead."""
    held = [layer for layer in layers[bucket.first_layer : bucket.stop_layer] if layer.quantized_parameters]
    experts = sum(layer.expert_parameters for layer in held)
    if bucket.axis == "edp":
        return experts
    return sum(layer.quantized_parameters for layer in held) - experts


def _recompute(run: RunSpec) -> Recompute:
    """Megatron-LM's own checkpoints repeat all they cover; PyTorch's end when nothing more is needed.

    A unit of several layers needs the outputs of all but its last.
    """
    asked = run.training.recompute
    if asked.method == "uniform" and asked.num_layers > 1:
        return replace(asked, early_stop=False)
    if asked.early_stop is not None:
        return asked
    return replace(asked, early_stop=run.runtime.software != "megatron")


def _is_recomputed(recompute: Recompute, position: int) -> bool:
    """Whether full recompute covers a chunk's layer: all of them (uniform) or the first n (block)."""
    if recompute.granularity != "full":
        return False
    return recompute.method == "uniform" or position < recompute.num_layers


def _narrow(run: RunSpec, layer: int) -> Narrow | None:
    """How a layer is quantised; ``None`` where it stays in 16 bits or more."""
    t = run.training
    recipe = find_recipe(t.precision, t.fp8_recipe, run.cluster.device.architecture)
    last = run.model.num_hidden_layers - t.num_layers_at_end_in_bf16
    if recipe is None or not t.num_layers_at_start_in_bf16 <= layer < last:
        return None
    regathered = run.parallelism.zero == FULLY_SHARDED and run.parallelism.gathered_until != "step"
    if regathered and not t.fp8_param_gather:
        recipe = replace(recipe, cached_weights=False)  # gathered anew, they are quantised anew
    return Narrow(recipe, run.runtime.quantize_fusion, t.fp8_param_gather, t.fp8_attention)
