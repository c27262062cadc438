"""A run: a model on a cluster under a parallel layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import ConfigDict

from simulator.spec.cluster import FORBID, ClusterSpec
from simulator.spec.model import ModelSpec

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """How the world is divided. ``dp`` is derived (world / (tp·pp·cp)) and must agree when given."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    tp: int = 1
    pp: int = 1
    vp: int = 1  # model chunks per pipeline rank
    cp: int = 1
    ep: int = 1
    etp: int = 0  # expert tensor parallel; 0: same as tp
    dp: int = 0  # 0: derived
    sequence_parallel: bool | None = None  # None: on when tp > 1
    zero: Literal[0, 1, 2, 3] = 1
    schedule: str = ""  # "": 1f1b, or interleaved-1f1b when vp > 1
    stage_split: Literal["equal", "embedding-and-loss-as-layers"] = "equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recompute:
    """Activation checkpointing, in Megatron's terms."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    granularity: Literal["none", "selective", "full"] = "none"
    method: Literal["uniform", "block"] = "uniform"  # full only
    num_layers: int = 1  # uniform: layers per checkpointed unit; block: layers recomputed per chunk
    modules: tuple[str, ...] = ("core_attn",)  # selective only


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The batch, the numbers and the optimizer."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    seq_length: int
    micro_batch_size: int
    global_batch_size: int
    precision: Precision = "bf16"
    grad_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    recompute: Recompute = field(default_factory=Recompute)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Switches of the training software."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    attention: Literal["flash", "unfused"] = "flash"
    tp_overlap: bool = False  # GEMMs overlapped with their own TP collectives (user buffers)
    overlap_grad_reduce: bool = True
    overlap_param_gather: bool = True
    overlap_p2p: bool | None = None  # None: on for interleaved schedules, as Megatron does
    cuda_graphs: Literal["none", "layer", "full"] = "none"
    rank_order: str = "tp-cp-ep-dp-pp"
    ddp_bucket_elements: float = 40e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """How the simulator itself works; results agree between the choices (see the engine's README)."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    detail: Literal["block", "operator"] = "block"
    ranks: Literal["classes", "all"] = "classes"
    seed: int = 0
    flops_convention: str = "megatron"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the source of a run file measured, for the reader to compare."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    source: str
    step_time_s: float = 0.0
    model_tflops_per_gpu: float = 0.0
    mfu: float = 0.0
    flops_convention: str = ""
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything one simulation needs. Built by :func:`simulator.spec.load.load_run`, which checks the layout."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    model: ModelSpec
    cluster: ClusterSpec
    gpus: int
    parallelism: Parallelism
    training: Training
    runtime: Runtime = field(default_factory=Runtime)
    simulation: Simulation = field(default_factory=Simulation)
    name: str = ""
    description: str = ""
    published: Published | None = None
    assumptions: tuple[str, ...] = ()

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
