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
from simulator.spec.noise import Jitter

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
    """Of the device."""
    title: Text = ""
    """As its maker calls it."""
    aliases: tuple[Text, ...] = ()
    """Short names."""
    architecture: Architecture = "other"
    """Generation."""
    peak_flops: dict[PeakPrecision, FlopPerSecond]
    """Dense rate of each number format."""
    peak_flops_sparse: dict[PeakPrecision, FlopPerSecond] = field(default_factory=dict)
    """Rate with 2:4 sparsity, for the record; never used for MFU."""
    memory_bytes: PositiveBytes
    """Device memory."""
    memory_bandwidth: Bandwidth
    """Of the device memory."""
    l2_bytes: Bytes = 0.0
    """Last-level cache."""
    sm_count: Count
    """Streaming multiprocessors."""
    boost_hz: Hertz = 0.0
    """Clock behind the peak rates."""
    tdp_w: Watts = 0.0
    """Power limit."""
    kernels: Text = ""
    """Fitted kernel profile; empty: the one with the device's name."""
    sources: dict[str, Text] = field(default_factory=dict)
    """Fact to public source."""
    notes: Text = ""
    """What else to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """One port of a link, per direction."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: Text
    """Of the link."""
    kind: LinkKind
    """Technology."""
    bandwidth: Bandwidth
    """In one direction, per GPU for NVLink, per NIC or slot otherwise."""
    latency_s: Seconds
    """Of one hop."""
    source: Text = ""
    """Public source."""
    notes: Text = ""
    """What else to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp:
    """The NVLink (or PCIe) domain around a GPU."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec
    """What joins the GPUs: a name in hardware_profiles/links, a file, or the keys themselves."""
    domain_size: Count
    """GPUs that reach each other over this link."""
    topology: Topology = "switch"
    """Shape of the domain."""
    multicast: Flag = False
    """Reduction and multicast in the switch (NVLS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A switch level. ``nodes`` is how many nodes share one switch (group) of it; 0: the whole cluster."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: Text
    """Of the level."""
    nodes: CountOrZero = 0
    """Nodes that share one switch (group) of this level; 0: the whole cluster."""
    oversubscription: Annotated[float, Number(1.0)] = 1.0
    """Bandwidth down over bandwidth up; 1: full bisection."""
    latency_s: Seconds = 0.0
    """Of crossing this level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOut:
    """The network between nodes."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec
    """Of one NIC: a name in hardware_profiles/links, a file, or the keys themselves."""
    nics_per_node: Count
    """NICs of a node."""
    rail_optimised: Flag = True
    """The same NIC of every node meets in the same leaf switch."""
    tiers: tuple[Tier, ...] = ()
    """Switch levels, from the nodes up."""
    adaptive_routing: Flag = True
    """Packets avoid busy links; otherwise flows are hashed onto the uplinks of a leaf, and collide."""
    flows_per_nic: Count = 1
    """Flows (queue pairs) at a time that the traffic of a NIC is hashed in, where routing is static."""
    hierarchical: Flag = False
    """Software may split a collective into steps inside and across scale-up domains."""
    in_network_reduction: Flag = False
    """Reduction in the switches (SHARP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The CPU side of a node."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    link: LinkSpec
    """GPU to CPU: a name in hardware_profiles/links, a file, or the keys themselves."""
    kernel_launch_s: Seconds = 4e-6
    """Host time to launch one kernel without CUDA graphs."""
    cpu: Text = ""
    """Model."""
    thread_speed: Annotated[float, Number(0.1)] = 1.0
    """Speed of one thread, over that of the Xeon Platinum 8480C of a DGX H100."""
    memory_bytes: Bytes = 0.0
    """Host memory of a node."""
    memory_bandwidth: BytesPerSecond = 0.0
    """Of the host memory."""
    nvme_bandwidth: BytesPerSecond = 0.0
    """Of local storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """Nodes of one kind, and what joins them."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    name: Text
    """Of the cluster."""
    title: Text = ""
    """As its owner calls it."""
    default_for: Text = ""
    """The device that means this cluster where a cluster is asked for."""
    device: DeviceSpec
    """A name in hardware_profiles/devices, an alias, a file, or the keys themselves."""
    gpus_per_node: Count
    """GPUs of a node."""
    scale_up: ScaleUp
    """NVLink or PCIe domain."""
    scale_out: ScaleOut
    """Network between nodes."""
    host: Host
    """CPU side of a node."""
    fabric: Text = ""
    """Fitted profile of the network, or a site's .yaml file; empty: the default of its link kind."""
    max_gpus: CountOrZero = 0
    """GPUs there are; 0: any number."""
    jitter: Jitter = field(default_factory=Jitter)
    """Of runs that name none: measured on this machine, with its source; by default nothing varies."""
    price_per_gpu_hour: Real = 0.0
    """In a currency of your choice."""
    sources: dict[str, Text] = field(default_factory=dict)
    """Fact to public source."""
    notes: Text = ""
    """What else to know."""
