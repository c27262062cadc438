"""The machine: devices, links, nodes and the network between them. Datasheet facts only, in SI units.

What was *fitted* on measurements lives elsewhere (``hardware_profiles/kernels`` and ``hardware_profiles/fabrics``)
and is read by :mod:`simulator.cost` and :mod:`simulator.network`: facts and fits never share a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pydantic import ConfigDict

FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One accelerator. ``peak_flops`` are dense tensor-core rates by precision, in FLOP/s."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    architecture: Literal["volta", "ampere", "hopper", "blackwell", "tpu", "other"] = "other"
    peak_flops: dict[str, float]  # keys: fp32 tf32 fp16 bf16 fp8 fp4
    peak_flops_sparse: dict[str, float] = field(default_factory=dict)
    memory_bytes: float
    memory_bandwidth: float  # bytes/s
    l2_bytes: float = 0.0
    sm_count: int
    boost_hz: float = 0.0
    tdp_w: float = 0.0
    kernels: str = ""  # name of the fitted kernel profile; "": the device's own name
    sources: dict[str, str] = field(default_factory=dict)  # fact -> public source
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """One port of a link, per direction."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    kind: Literal["nvlink", "pcie", "infiniband", "roce", "efa", "slingshot", "c2c", "ici", "ethernet"]
    bandwidth: float  # bytes/s in one direction, per GPU for NVLink, per NIC or slot otherwise
    latency_s: float
    source: str = ""
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp:
    """The NVLink (or PCIe) domain around a GPU."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec
    domain_size: int  # GPUs that reach each other over this link
    topology: Literal["switch", "bridge", "mesh", "pcie", "torus"] = "switch"
    multicast: bool = False  # in-switch reduction and multicast (NVLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A switch level. ``nodes`` is how many nodes share one switch (group) of it; 0 means the whole cluster."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    nodes: int = 0
    oversubscription: float = 1.0
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOut:
    """The network between nodes."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec
    nics_per_node: int
    rail_optimised: bool = True
    tiers: tuple[Tier, ...] = ()
    adaptive_routing: bool = True
    in_network_reduction: bool = False  # SHARP


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The CPU side of a node."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec  # GPU to CPU: PCIe or C2C
    kernel_launch_s: float = 4e-6  # host time to launch one kernel without CUDA graphs
    cpu: str = ""
    memory_bytes: float = 0.0
    memory_bandwidth: float = 0.0
    nvme_bandwidth: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Nodes of one kind, and what joins them."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: str
    title: str = ""
    device: DeviceSpec
    gpus_per_node: int
    scale_up: ScaleUp
    scale_out: ScaleOut
    host: Host
    fabric: str = ""  # name of the fitted fabric profile; "": defaults by link kind
    max_gpus: int = 0  # 0: unlimited
    price_per_gpu_hour: float = 0.0
    sources: dict[str, str] = field(default_factory=dict)
    notes: str = ""
