"""The whole division of a run: what each virtual stage computes, keeps, sends and reduces on one rank."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.graph.decoder import layer_input, layer_kinds
from simulator.graph.operators import DTYPE_BYTES, Collective
from simulator.graph.options import GraphOptions
from simulator.graph.precision import find_recipe
from simulator.partition.chunk import ChunkShare, Division, share_chunks, stages_of
from simulator.partition.context_group import ContextParallel
from simulator.partition.data import FULLY_SHARDED, DataParallel, Sharding
from simulator.partition.document_load import MicrobatchLoads, microbatch_loads
from simulator.partition.expert_layout import ExpertParallel, expert_parallel
from simulator.partition.grid import Grid
from simulator.partition.layer_share import Narrow, Split
from simulator.partition.optimizer import Optimizer, parameter_bytes
from simulator.partition.state_offload import StateOffload
from simulator.partition.tensor import TensorParallel
from simulator.spec.recompute import Recompute
from simulator.spec.run import FULL_PRECISIONS, NARROW_PRECISIONS, Parallelism, RunSpec, Runtime

VOCABULARY_MULTIPLE = 128  # Megatron-LM pads the vocabulary to a multiple of 128·tp


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
        return sum(chunk.flops for chunk in self.chunks) * self.microbatches * self.tensor.size


def plan_run(run: RunSpec, *, copies: int = 1, forward_only: bool = False) -> RunPlan:
    """Divides a run, whose schedule has each stage ``copies`` times in a pipeline (DualPipe: 2).

    ``forward_only``: it has no backward passes.

    Raises :class:`ValueError` where a split is impossible (the spec's rules catch these first).
    """
    p, division = run.parallelism, _division(run, copies, forward_only=forward_only)
    tp, opts, data = division.ends.tensor, division.opts, division.data
    boundaries = _boundaries(run, opts)
    width = DTYPE_BYTES["fp32" if run.training.precision in FULL_PRECISIONS else "bf16"]
    boundary = max(boundaries, default=opts.tokens * run.model.hidden_size * width)
    scattered = tp.splits_tokens or run.runtime.scatter_gather or bool(run.model.layers)
    sent = tp.size if scattered else 1
    model = run.model
    twice = model.tie_word_embeddings or model.num_nextn_predict_layers or model.num_encoder_layers
    return RunPlan(
        chunks=share_chunks(division, p.pp, p.vp, p.stage_split),
        data=data,
        tensor=tp,
        message_bytes=boundary / sent,
        crossings=tuple(size / sent for size in boundaries),
        message_gather=_message_gather(boundary, tp, scattered, channels=bool(run.model.layers)),
        tied_embedding_bytes=opts.vocab_size * run.model.hidden_size / tp.size * data.grad_bytes
        if twice and p.pp > 1 and opts.lora is None
        else 0.0,
        microbatches=run.microbatches,
        padded_vocab_size=opts.vocab_size,
        loads=loads_of(run),
        forward_only=forward_only,
    )


def _division(run: RunSpec, copies: int, *, forward_only: bool) -> Division:
    """All that decides how layers are divided."""
    p, t, data = run.parallelism, run.training, _data_parallel(run, copies)
    tp = TensorParallel(
        size=p.tp,
        sequence=run.sequence_parallel,
        overlap=run.runtime.tp_overlap,
        grid=_grid(run),
        overlap_dgrad=run.runtime.tp_dgrad_overlap,
        batch_first=run.runtime.tp_batch_first,
    )
    return Division(
        model=run.model,
        opts=_graph_options(run),
        ends=Split(tp, ExpertParallel(), _context(run), data.fresh_gradient_bytes),
        graph_scope=run.runtime.cuda_graph_scope,
        graphs=run.runtime.cuda_graphs == "layer",
        experts=expert_parallel(run),
        load=t.moe,
        seed=run.simulation.seed,
        recompute=_recompute(run),
        narrow=_narrow(run),
        wide=(t.num_layers_at_start_in_bf16, t.num_layers_at_end_in_bf16),
        offloaded_layers=t.activation_offload_layers,
        narrow_gathers=t.fp8_param_gather and t.precision == "fp8",
        data=data,
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
        loss_fusion=_loss_fusion(run.runtime),
        loss_compiled=run.runtime.loss_compilation,
        lora=run.training.lora if run.training.lora.rank else None,
        documents=run.documents,
    )


def _loss_fusion(runtime: Runtime) -> str:
    """Whose fused cross entropy runs; "": none. Transformer Engine's modules belong to Megatron's stack."""
    if not runtime.cross_entropy_fusion:
        return ""
    return runtime.cross_entropy_fusion_impl if runtime.software == "megatron" else "native"


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
        balanced=p.cp_balance,
        compiled=run.runtime.software == "compiled",
        documents=run.documents,
        whole_sequences=run.cp_slices == "sequence",
    )


def loads_of(run: RunSpec) -> MicrobatchLoads | None:
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


def _boundaries(run: RunSpec, opts: GraphOptions) -> tuple[float, ...]:
    """What leaves each device where boundaries differ, whole; the last one sends nothing."""
    if not (run.model.layers or run.model.num_encoder_layers):
        return ()
    p, kinds = run.parallelism, layer_kinds(run.model)
    stages = stages_of(run.model, p.pp, p.vp, p.stage_split)
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


def _narrow(run: RunSpec) -> Narrow | None:
    """How layers are quantised; ``None`` where all stay in 16 bits or more."""
    t = run.training
    recipe = find_recipe(t.precision, t.fp8_recipe, run.cluster.device.architecture)
    if recipe is None:
        return None
    regathered = run.parallelism.zero == FULLY_SHARDED and run.parallelism.gathered_until != "step"
    if regathered and not t.fp8_param_gather:
        recipe = replace(recipe, cached_weights=False)  # gathered anew, they are quantised anew
    # HybridEP pads what it delivers; rows padded to a capacity need nothing more
    pads, kept = run.runtime.moe_dispatcher != "hybridep" and not t.moe.pad_to_capacity, t.narrow_activations
    return Narrow(recipe, run.runtime.quantize_fusion, t.fp8_param_gather, t.fp8_attention, kept, pads)
