"""A run: a model on a cluster under a parallel layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict

from simulator.spec.cluster import FORBID, ClusterSpec
from simulator.spec.fields import (
    Choice,
    Count,
    CountOrZero,
    Flag,
    FlagOrAuto,
    Integer,
    Number,
    Permutation,
    Ratio,
    Real,
    Seconds,
    Text,
)
from simulator.spec.model import ModelSpec

SCHEDULES = (
    *("gpipe", "1f1b", "looped-bfs", "interleaved-1f1b", "interleaved-zb", "zb-v", "zb-h1", "zb-h2"),
    *("dualpipe", "dualpipev", "pipedream", "pipedream-2bw", "forward-only"),
)
RECOMPUTE_MODULES = (
    "core_attn",
    "mlp",
    "moe",
    "moe_act",
    "layernorm",
    "mla_up_proj",
    "shared_experts",
)  # Megatron's
FLOPS_CONVENTIONS = (
    *(
        "megatron",
        "megatron-full",
        "dgxc",
        "narayanan-2021",
        "korthikanti-2022",
        "korthikanti-2022-selective",
    ),
    *("6n", "palm-6n", "mosaic"),
)
GPT_CONVENTIONS = frozenset({"narayanan-2021", "korthikanti-2022", "korthikanti-2022-selective"})

Precision: TypeAlias = Annotated[str, Choice(("fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"))]
ZeroStage: TypeAlias = Annotated[int, Integer(0, 3)]
StageSplit: TypeAlias = Annotated[str, Choice(("equal", "embedding-and-loss-as-layers"))]
Granularity: TypeAlias = Annotated[str, Choice(("none", "selective", "full"))]
RecomputeModule: TypeAlias = Annotated[str, Choice(RECOMPUTE_MODULES)]
RankOrder: TypeAlias = Annotated[str, Permutation(("tp", "cp", "ep", "dp", "pp"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """How the world is divided. ``dp`` is derived (world / (tp·pp·cp)) and must agree when given."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    tp: Count = 1
    pp: Count = 1
    vp: Count = 1  # model chunks per pipeline rank
    cp: Count = 1
    ep: Count = 1
    etp: CountOrZero = 0  # expert tensor parallel; 0: same as tp
    dp: CountOrZero = 0  # 0: derived
    sequence_parallel: FlagOrAuto = None  # None: on when tp > 1
    zero: ZeroStage = 1
    schedule: Annotated[str, Choice(("", *SCHEDULES))] = ""  # "": 1f1b, or interleaved-1f1b when vp > 1
    stage_split: StageSplit = "equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recompute:
    """Activation checkpointing, in Megatron's terms."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    granularity: Granularity = "none"
    method: Annotated[str, Choice(("uniform", "block"))] = "uniform"  # full only
    num_layers: Count = 1  # uniform: layers per checkpointed unit; block: layers recomputed per chunk
    modules: tuple[RecomputeModule, ...] = ("core_attn",)  # selective only


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The batch, the numbers and the optimizer."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    seq_length: Count
    micro_batch_size: Count
    global_batch_size: Count
    precision: Precision = "bf16"
    grad_dtype: Annotated[str, Choice(("fp32", "bf16", "fp16"))] = "fp32"
    optimizer: Annotated[str, Choice(("adam", "adamw", "sgd"))] = "adamw"
    recompute: Recompute = field(default_factory=Recompute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Switches of the training software."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    attention: Annotated[str, Choice(("flash", "unfused"))] = "flash"
    tp_overlap: Flag = False  # GEMMs overlapped with their own TP collectives (user buffers)
    tp_dgrad_overlap: Flag = (
        True  # input-gradient reductions beside weight gradients (Megatron-LM since late 2021)
    )
    gradient_accumulation_fusion: Flag = True  # weight-gradient GEMMs add into the main gradient themselves
    overlap_grad_reduce: Flag = True
    overlap_param_gather: Flag = True
    overlap_p2p: FlagOrAuto = None  # None: on for interleaved schedules, as Megatron does
    scatter_gather: Flag = False  # p2p in 1/tp pieces without SP (Narayanan 2021, section 4.1)
    cuda_graphs: Annotated[str, Choice(("none", "layer", "full"))] = "none"
    rank_order: RankOrder = "tp-cp-ep-dp-pp"
    ddp_bucket_elements: Annotated[float, Number(1.0)] = 40e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """How the simulator itself works; results agree between the choices (see the engine's README)."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    detail: Annotated[str, Choice(("block", "operator"))] = "block"
    ranks: Annotated[str, Choice(("classes", "all"))] = "classes"
    seed: CountOrZero = 0
    flops_convention: Annotated[str, Choice(FLOPS_CONVENTIONS)] = "megatron"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the source of a run file measured, for the reader to compare."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    source: Text
    step_time_s: Seconds = 0.0
    model_tflops_per_gpu: Real = 0.0
    mfu: Ratio = 0.0
    flops_convention: Text = ""
    notes: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything one simulation needs. :func:`simulator.spec.load.load_run` builds and checks it."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    model: ModelSpec
    cluster: ClusterSpec
    gpus: Count
    parallelism: Parallelism
    training: Training
    runtime: Runtime = field(default_factory=Runtime)
    simulation: Simulation = field(default_factory=Simulation)
    name: Text = ""
    description: Text = ""
    published: Published | None = None
    assumptions: tuple[Text, ...] = ()

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
        asked = self.parallelism.sequence_parallel
        return self.parallelism.tp > 1 and (asked is None or asked)

    @property
    def schedule(self) -> str:
        """The pipeline schedule, by its registered name."""
        p = self.parallelism
        return p.schedule or ("interleaved-1f1b" if p.vp > 1 else "1f1b")
