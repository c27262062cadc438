"""A run: a model on a cluster under a parallel layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isqrt
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict

from simulator.spec.cluster import FORBID, ClusterSpec
from simulator.spec.documents import Documents, Slices
from simulator.spec.expert_load import ExpertLoad
from simulator.spec.fields import (
    Bytes,
    Choice,
    ChoiceOrFile,
    Count,
    CountOrZero,
    Flag,
    FlagOrAuto,
    FlagOrFactor,
    Integer,
    Number,
    Permutation,
    Ratio,
    Text,
)
from simulator.spec.lora import Lora
from simulator.spec.model import ModelSpec
from simulator.spec.noise import Jitter, Noise
from simulator.spec.published import Published
from simulator.spec.recompute import Recompute
from simulator.spec.sharding import FullySharded, StateOffload
from simulator.spec.stage_layout import StageLayout
from simulator.spec.stage_split import BALANCED, NAMED_SPLITS

SCHEDULES = (
    *("gpipe", "1f1b", "looped-bfs", "interleaved-1f1b", "interleaved-zb", "zb-v", "v-min", "zb-h1", "zb-h2"),
    *("dualpipe", "dualpipev", "pipedream", "pipedream-2bw", "forward-only"),
)
AUTOMATIC = "automatic"  # a schedule made for the run's own times and memory
FLOPS_CONVENTIONS = (
    *(
        "megatron",
        "megatron-full",
        "dgxc",
        "narayanan-2021",
        "korthikanti-2022",
        "korthikanti-2022-selective",
    ),
    *("6n", "palm-6n", "mosaic", "megatron-packed"),
)
GPT_CONVENTIONS = frozenset({"narayanan-2021", "korthikanti-2022", "korthikanti-2022-selective"})

GRAPH_PARTS = ("attn", "mamba", "mlp", "moe_router", "moe_preprocess")  # Megatron-LM's --cuda-graph-scope
ATTENTION_KERNELS = ("flash", "flash1", "flash2", "flash3", "triton", "cudnn", "unfused")
SOFTWARE_STACKS = ("megatron", "compiled", "eager")
FULL_PRECISIONS = ("fp32", "tf32")
NARROW_PRECISIONS = ("fp8", "mxfp8", "nvfp4")
FP8_RECIPES = ("delayed", "current", "blockwise", "torchao-tensorwise", "torchao-rowwise")

Precision: TypeAlias = Annotated[str, Choice(("fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"))]
ZeroStage: TypeAlias = Annotated[int, Integer(0, 3)]
ContextMethod: TypeAlias = Annotated[
    Literal["ring", "torch-ring", "all-gather", "ulysses", "hierarchical"],
    Choice(("ring", "torch-ring", "all-gather", "ulysses", "hierarchical")),
]
TensorMode: TypeAlias = Annotated[
    Literal["1d", "2d", "2.5d", "3d"],
    Choice(("1d", "2d", "2.5d", "3d")),
]
StageSplit: TypeAlias = Annotated[str | tuple[int, ...], StageLayout((*NAMED_SPLITS, BALANCED))]
NarrowActivation: TypeAlias = Annotated[str, Choice(("mlp_activation_input", "attention_output"))]
GraphPart: TypeAlias = Annotated[str, Choice(GRAPH_PARTS)]
RankOrder: TypeAlias = Annotated[str, Permutation(("tp", "cp", "ep", "dp", "pp"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """How the world is divided. ``dp`` is derived (world / (tp·pp·cp)) and must agree when given."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    tp: Count = 1
    """Tensor parallel: GPUs that share each layer's matrices."""
    tp_mode: TensorMode = "1d"
    """How: rows or columns of matrices (1d, Megatron), or blocks on a grid of GPUs (Colossal-AI)."""
    tp_depth: CountOrZero = 0
    """For 2.5d: squares of GPUs that share the tokens, each with all weights."""
    pp: Count = 1
    """Pipeline parallel: devices that a microbatch passes through."""
    vp: Count = 1
    """Virtual stages: model chunks per pipeline device."""
    cp: Count = 1
    """Context parallel: GPUs that share each sequence."""
    cp_method: ContextMethod = "ring"
    """How their attention meets: keys and values sent round or gathered, heads exchanged, or both."""
    cp_inner: CountOrZero = 0
    """For hierarchical: GPUs that exchange heads; rings run across them."""
    cp_balance: Flag = True
    """Of rings: an early and a late slice each; false: slices in order (PyTorch 2.5), the last does most."""
    cp_slices: Slices = ""
    """What their slices are cut from: packed sequences (Llama 3), or each document; empty: by cp_method."""
    ep: Count = 1
    """Expert parallel: GPUs that share the experts of a layer."""
    etp: CountOrZero = 0
    """Expert tensor parallel: GPUs that share one expert; 0: as tp."""
    dp: CountOrZero = 0
    """Data parallel: replicas. Derived as gpus / (tp·pp·cp); 0 or that number."""
    sequence_parallel: FlagOrAuto = None
    """Split norms and dropout over the TP group; null: where tp > 1."""
    zero: ZeroStage = 1
    """ZeRO stage over the DP group: 1 shards optimizer states, 2 gradients too, 3 parameters too (FSDP)."""
    shard_size: CountOrZero = 0
    """Ranks over which ZeRO shards, replicated across such groups (HSDP, MiCS); 0: all dp·cp."""
    fsdp: FullySharded = field(default_factory=FullySharded)
    """Where zero is 3: when parameters are whole and gradients reduced."""
    offload: StateOffload = field(default_factory=StateOffload)
    """Where optimizer states and parameters live (ZeRO-Offload, ZeRO-Infinity)."""
    schedule: Annotated[str, ChoiceOrFile(("", *SCHEDULES, AUTOMATIC), ".csv")] = ""
    """Pipeline schedule, automatic, or a file of actions; empty: 1f1b, or interleaved-1f1b where vp > 1."""
    microbatch_group_size: CountOrZero = 0
    """Of interleaved-1f1b: microbatches that a chunk runs in turn; 0: pp, or the next that leaves no rest."""
    stage_memory: Bytes = 0.0
    """With schedule automatic: what a pipeline device may hold; 0: all of its memory."""
    stage_split: StageSplit = "equal"
    """Which layers a stage gets; balanced: the split that suits the run's own layer times and memory."""

    @property
    def tp_grid(self) -> tuple[int, int, int]:
        """Rows, columns and depth of a tensor-parallel group."""
        depth = {"1d": 0, "2d": 1, "2.5d": self.tp_depth}.get(self.tp_mode, round(self.tp ** (1 / 3)))
        if not depth:
            return (self.tp, 1, 1)
        side = isqrt(self.tp // depth)
        return (side, side, depth)

    @property
    def gathered_until(self) -> Literal["forward", "backward", "step"]:
        """How long fully sharded parameters stay whole.

        By default a pipeline keeps them for the step and reduces gradients once, as PyTorch's stages do:
        neither resharding nor synchronisation before the last backward (``torch.distributed.pipelining``).
        """
        fsdp, alone = self.fsdp, self.pp == 1
        if fsdp.reshard_after_backward is False:
            return "step"
        if fsdp.reshard_after_forward or (fsdp.reshard_after_forward is None and alone):
            return "forward"
        return "backward" if fsdp.reshard_after_backward or alone else "step"

    @property
    def gradients_reduced(self) -> Literal["microbatch", "step"]:
        """How often fully sharded gradients are reduced."""
        asked = self.fsdp.gradient_sync
        return "step" if asked == "step" or (not asked and self.pp > 1) else "microbatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The batch, the numbers and the optimizer."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    seq_length: Count
    """Tokens of a sequence."""
    decoder_seq_length: CountOrZero = 0
    """Tokens of a decoder's sequence beside an encoder's of seq_length; 0: the model has one side."""
    micro_batch_size: Count
    """Sequences that pass through the model at once."""
    global_batch_size: Count
    """Sequences of an optimizer step, over all replicas."""
    precision: Precision = "bf16"
    """Number format of the linear layers."""
    fp8_recipe: Annotated[str, Choice(("", *FP8_RECIPES))] = ""
    """How fp8 tensors are scaled; empty: delayed, where precision is fp8."""
    fp8_param_gather: Flag = False
    """Weights are kept and gathered in fp8, without bf16 copies."""
    fp8_attention: Flag = False
    """The attention core runs in fp8 beside narrow linear layers."""
    num_layers_at_start_in_bf16: CountOrZero = 0
    """First layers whose products stay in bf16 beside a narrower precision."""
    num_layers_at_end_in_bf16: CountOrZero = 0
    """Last layers whose products stay in bf16 beside a narrower precision."""
    grad_dtype: Annotated[str, Choice(("fp32", "bf16", "fp16"))] = "fp32"
    """Format in which gradients accumulate and are reduced."""
    optimizer: Annotated[str, Choice(("adam", "adamw", "sgd", "sgd-momentum", "muon"))] = "adamw"
    """Optimizer; Adam keeps two moments, Muon and momentum one."""
    master_weights: Annotated[str, Choice(("fp32", "remainder"))] = "fp32"
    """Master weights in fp32, or 16 bits more beside each weight (a precision-aware optimizer)."""
    moment_dtype: Annotated[str, Choice(("fp32", "bf16", "fp16", "fp8"))] = "fp32"
    """Format of the optimizer's moments."""
    recompute: Recompute = field(default_factory=Recompute)
    """Activation checkpointing."""
    narrow_activations: tuple[NarrowActivation, ...] = ()
    """Kept in fewer bits beside fp8 products: inputs of the MLP's activation, outputs of attention."""
    activation_offload_layers: CountOrZero = 0
    """First layers of each model chunk whose kept activations wait in host memory."""
    moe: ExpertLoad = field(default_factory=ExpertLoad)
    """How evenly tokens go to the experts."""
    documents: Documents = field(default_factory=Documents)
    """Documents packed into each sequence, between which there is no attention."""
    lora: Lora = field(default_factory=Lora)
    """Adapters that are trained beside frozen weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Switches of the training software."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    attention: Annotated[str, Choice(ATTENTION_KERNELS)] = "flash"
    """Fused attention, by a generation of kernels (flash: the device's usual one), or unfused."""
    tp_overlap: Flag = False
    """GEMMs overlapped with their own TP collectives (user buffers)."""
    tp_dgrad_overlap: Flag = True
    """Input-gradient reductions beside weight gradients (Megatron-LM since late 2021)."""
    tp_batch_first: Flag = False
    """Tokens lie behind the batch (PyTorch's DTensor): gathers and reductions over them take a copy more."""
    gradient_accumulation_fusion: Flag = True
    """Weight-gradient GEMMs add into the main gradient themselves."""
    quantize_fusion: Flag = True
    """A norm writes its output quantised where the recipe of a narrow precision allows."""
    overlap_grad_reduce: Flag = True
    """Gradient reductions beside the last backward pass."""
    average_in_collective: Flag = True
    """The reduction averages; otherwise a pass of its own scales gradients by 1/DP before it."""
    overlap_param_gather: Flag = True
    """Parameter gathers beside the next step's first forward pass."""
    overlap_p2p: FlagOrAuto = None
    """Messages between stages beside compute; null: for interleaved schedules, as Megatron does."""
    overlap_p2p_warmup_flush: Flag = False
    """Where they overlap, also before the first backward and after the last forward of a device."""
    batch_p2p: Flag = True
    """Where they do not overlap, what a device sends and receives at once is one call."""
    optimizer_post_validation: Flag = False
    """A stage updates with the norm of the stages before it; the whole one is checked later (zero bubble)."""
    moe_dispatcher: Annotated[str, Choice(("alltoall", "allgather", "deepep", "hybridep"))] = "alltoall"
    """How rows reach their experts: each by itself, every token everywhere, or once per node (DeepEP)."""
    ep_overlap: Flag = False
    """A forward and a backward run together, each computing beside the other's dispatch and combine."""
    delay_wgrad: Flag = False
    """With ep_overlap: weight gradients run beside their own microbatch's all-to-all too."""
    moe_dispatch_precision: Annotated[str, Choice(("bf16", "fp8"))] = "bf16"
    """Of rows and gradients on the way to the experts; the way back is bf16 (DeepSeek-V3, section 3.3.3)."""
    moe_grouped_gemm: Annotated[str, Choice(("multi-stream", "fused"))] = "multi-stream"
    """Products of the local experts: a launch each on several streams, or one for all."""
    moe_permute_fusion: Flag = True
    """Rows are gathered and summed by one kernel each."""
    moe_router_fusion: Flag = False
    """Scores, choice of experts and auxiliary loss by one kernel each."""
    moe_shared_expert_overlap: Flag = False
    """Shared experts beside the dispatch and the combine."""
    scatter_gather: Flag = False
    """Messages between stages in 1/tp pieces without SP (Narayanan 2021, section 4.1)."""
    cuda_graphs: Annotated[str, Choice(("none", "layer", "full"))] = "none"
    """What is captured: nothing, each layer, or the whole step."""
    cuda_graph_scope: tuple[GraphPart, ...] = ()
    """Where cuda_graphs is layer: the parts that are captured; empty: all whose shape the host knows."""
    software: Annotated[str, Choice(SOFTWARE_STACKS)] = "megatron"
    """Memory-bound kernels and host time: Transformer Engine's modules, compiled or eager PyTorch."""
    cross_entropy_fusion: Flag = False
    """Loss and its gradient by the software's fused kernels; false: as it does by default."""
    cross_entropy_fusion_impl: Annotated[str, Choice(("native", "te"))] = "native"
    """Where software is megatron: which fused kernels, its own or Transformer Engine's."""
    loss_compilation: Flag = True
    """Where software is compiled: the loss is too."""
    expandable_segments: Flag = False
    """PyTorch's allocator grows its segments (PYTORCH_CUDA_ALLOC_CONF): less is lost to fragmentation."""
    optimizer_fusion: FlagOrAuto = None
    """An Adam step in one pass over its states; null: for megatron only (PyTorch: a pass per operator)."""
    rank_order: RankOrder = "tp-cp-ep-dp-pp"
    """Axes from the fastest-varying rank to the slowest."""
    ddp_buckets: Annotated[str, Choice(("megatron", "torch"))] = "megatron"
    """Megatron-LM's rule (only the first chunk is cut), or PyTorch DDP's and DeepSpeed's (everything is)."""
    ddp_bucket_elements: Annotated[float, Number(1.0)] = 40e6
    """Gradient elements of a bucket; Megatron-LM takes at least a million per replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """How the simulator itself works; results agree between the choices (see the engine's README)."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    detail: Annotated[str, Choice(("block", "operator"))] = "block"
    """Replay blocks once and re-use them, or every operator."""
    ranks: Annotated[str, Choice(("classes", "all"))] = "classes"
    """Simulate classes of equal ranks, or every rank."""
    seed: CountOrZero = 0
    """Of the random numbers."""
    sustained: FlagOrFactor = True
    """Matrix kernels at the rate that training sustains; false: short benchmarks'; or one's own factor."""
    sustained_error: Ratio = 0.0
    """Relative standard error of that factor."""
    flops_convention: Annotated[str, Choice(FLOPS_CONVENTIONS)] = "megatron"
    """How model FLOPs are counted for MFU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything one simulation needs. :func:`simulator.spec.load.load_run` builds and checks it."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    model: ModelSpec
    """A name in workloads/models, a file, or the keys themselves."""
    cluster: ClusterSpec
    """A name in hardware_profiles/clusters, a device, a file, or the keys themselves."""
    gpus: Count
    """GPUs of the job."""
    parallelism: Parallelism
    """How the GPUs share the work."""
    training: Training
    """The batch, the numbers and the optimizer."""
    runtime: Runtime = field(default_factory=Runtime)
    """Switches of the training software."""
    noise: Noise = field(default_factory=Noise)
    """Jitter and stragglers; by default only what the cluster's profile says."""
    simulation: Simulation = field(default_factory=Simulation)
    """How the simulator works."""
    name: Text = ""
    """Of the run."""
    description: Text = ""
    """One line for the reader."""
    published: Published | None = None
    """What was measured, to compare with."""
    assumptions: tuple[Text, ...] = ()
    """What the source does not say and this file assumes."""

    @property
    def dp(self) -> int:
        """Data-parallel replicas."""
        p = self.parallelism
        return self.gpus // (p.tp * p.pp * p.cp)

    @property
    def microbatches(self) -> int:
        """Microbatches per step on each pipeline: GBS / (mbs · dp)."""
        return self.training.global_batch_size // (self.training.micro_batch_size * self.dp)

    @property
    def sequence_parallel(self) -> bool:
        """Whether norms and dropout are split over the TP group (Megatron SP)."""
        p, asked = self.parallelism, self.parallelism.sequence_parallel
        elsewhere = bool(self.model.layers) or p.tp_mode != "1d"  # tokens are cut otherwise, or not at all
        return p.tp > 1 and (asked is None or asked) and not elsewhere

    @property
    def documents(self) -> Documents | None:
        """Those packed into each sequence; ``None`` where it is one."""
        return self.training.documents if self.training.documents.distribution else None

    @property
    def cp_slices(self) -> Slices:
        """What CP ranks' slices are cut from: gathered keys allow any, rings take slices of each document."""
        p = self.parallelism
        return p.cp_slices or ("sequence" if p.cp_method == "all-gather" else "document")

    @property
    def shard_size(self) -> int:
        """Ranks over which ZeRO shards."""
        return self.parallelism.shard_size or self.dp * self.parallelism.cp

    @property
    def jitter(self) -> Jitter:
        """The run's own, or the cluster's."""
        return self.cluster.jitter if self.noise.jitter is None else self.noise.jitter

    @property
    def schedule(self) -> str:
        """The pipeline schedule, by its registered name."""
        p = self.parallelism
        return p.schedule or ("interleaved-1f1b" if p.vp > 1 else "1f1b")
