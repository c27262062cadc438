"""The machine: devices, links, nodes and the network between them. Datasheet facts only, in SI units.

What was *fitted* on measurements lives elsewhere (``hardware_profiles/kernels`` and ``fabrics``) and is read
by :mod:`simulator.cost` and :mod:`simulator.network`: facts and fits never share a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import (
    Bytes,
    BytesPerSecond,
    Choice,
    Count,
    CountOrZero,
    Flag,
    FlopPerSecond,
    Hertz,
    Number,
    Quantity,
    Real,
    Seconds,
    Text,
    Watts,
)

Architecture: TypeAlias = Annotated[str, Choice(("volta", "ampere", "hopper", "blackwell", "tpu", "other"))]
PeakPrecision: TypeAlias = Annotated[
    str, Choice(("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp6", "fp4", "int8"))
]
LinkKind: TypeAlias = Annotated[
    str, Choice(("nvlink", "pcie", "infiniband", "roce", "efa", "slingshot", "c2c", "ici", "ethernet"))
]
Topology: TypeAlias = Annotated[str, Choice(("switch", "bridge", "mesh", "pcie", "torus"))]
PositiveBytes: TypeAlias = Annotated[float, Quantity("bytes", positive=True)]
Bandwidth: TypeAlias = Annotated[float, Quantity("bytes/s", positive=True)]

FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """One accelerator. ``peak_flops`` are dense tensor-core rates by precision, in FLOP/s."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: Text
    title: Text = ""
    aliases: tuple[Text, ...] = ()
    architecture: Architecture = "other"
    peak_flops: dict[PeakPrecision, FlopPerSecond]
    peak_flops_sparse: dict[PeakPrecision, FlopPerSecond] = field(default_factory=dict)
    memory_bytes: PositiveBytes
    memory_bandwidth: Bandwidth
    l2_bytes: Bytes = 0.0
    sm_count: Count
    boost_hz: Hertz = 0.0
    tdp_w: Watts = 0.0
    kernels: Text = ""  # name of the fitted kernel profile; "": the device's own name
    sources: dict[str, Text] = field(default_factory=dict)  # fact -> public source
    notes: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """One port of a link, per direction."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: Text
    kind: LinkKind
    bandwidth: Bandwidth  # in one direction, per GPU for NVLink, per NIC or slot otherwise
    latency_s: Seconds
    source: Text = ""
    notes: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp:
    """The NVLink (or PCIe) domain around a GPU."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec
    domain_size: Count  # GPUs that reach each other over this link
    topology: Topology = "switch"
    multicast: Flag = False  # in-switch reduction and multicast (NVLS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A switch level. ``nodes`` is how many nodes share one switch (group) of it; 0: the whole cluster."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: Text
    nodes: CountOrZero = 0
    oversubscription: Annotated[float, Number(1.0)] = 1.0
    latency_s: Seconds = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOut:
    """The network between nodes."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec
    nics_per_node: Count
    rail_optimised: Flag = True
    tiers: tuple[Tier, ...] = ()
    adaptive_routing: Flag = True
    in_network_reduction: Flag = False  # SHARP


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The CPU side of a node."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec  # GPU to CPU: PCIe or C2C
    kernel_launch_s: Seconds = 4e-6  # host time to launch one kernel without CUDA graphs
    cpu: Text = ""
    memory_bytes: Bytes = 0.0
    memory_bandwidth: BytesPerSecond = 0.0
    nvme_bandwidth: BytesPerSecond = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Nodes of one kind, and what joins them."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: Text
    title: Text = ""
    default_for: Text = ""  # the device that stands for this cluster where a cluster is asked for
    device: DeviceSpec
    gpus_per_node: Count
    scale_up: ScaleUp
    scale_out: ScaleOut
    host: Host
    fabric: Text = ""  # name of the fitted fabric profile; "": defaults by link kind
    max_gpus: CountOrZero = 0  # 0: unlimited
    price_per_gpu_hour: Real = 0.0
    sources: dict[str, Text] = field(default_factory=dict)
    notes: Text = ""
