"""Fitted coefficients of a machine's links: what the collectives cost beyond the datasheet.

Two kinds of profile. A *scale-up* profile belongs to a generation of NVLink (or PCIe) and holds one curve per
collective, algorithm and protocol inside a domain. A *scale-out* profile belongs to a kind of network
and adds the latency of a hop between domains and the share of the NIC rate that is reached. Both are
plain YAML with the source of the measurements and the error on rows the fit has not seen. A *site* file,
which a cluster's ``fabric`` may point at, holds either or both, as ``stepcast calibrate fit`` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import resources
from math import inf
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from simulator.spec.catalogue import is_path
from simulator.spec.cluster import ClusterSpec
from simulator.spec.errors import Problem, SpecError
from simulator.spec.yaml_loader import read_yaml

FORMAT_VERSION = 1
_Curve = TypeVar("_Curve", "DomainCurve", "NetworkCurve")


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainCurve:
    """Time of one algorithm and protocol inside a scale-up domain.

    t = base_s + hops·hop_s + wire/bandwidth + own/copy_bandwidth + ramp_s·wire/(wire + ramp_bytes),
    where ``wire`` is what a rank puts on its links and ``own`` = size/ranks the share it only copies.
    The last term is the pipeline filling up: its chunks grow with the message until they reach NCCL's
    buffer size. A curve holds up to ``limit_bytes`` per rank: the library leaves the protocol there.
    """

    collective: str
    algorithm: str
    protocol: str
    base_s: float
    hop_s: float = 0.0
    bandwidth: float = inf
    copy_bandwidth: float = inf
    ramp_s: float = 0.0
    ramp_bytes: float = 1.0
    limit_bytes: float = inf

    def seconds(self, *, hops: float, wire_bytes: float, own_bytes: float) -> float:
        """Time of a message that crosses ``hops`` links one after the other."""
        filling = self.ramp_s * wire_bytes / (wire_bytes + self.ramp_bytes)
        return (
            self.base_s
            + hops * self.hop_s
            + wire_bytes / self.bandwidth
            + own_bytes / self.copy_bandwidth
            + filling
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCurve:
    """One algorithm and protocol between domains.

    A hop takes hop_s + fill_s·step/(step + fill_bytes) for a step of ``step`` bytes: the wire and the proxy,
    and the chunk, which is stored and forwarded and grows with the message up to NCCL's buffer. The whole
    transfer adds base_s + ramp_s·size/(size + ramp_bytes) and runs at ``efficiency`` of the NIC rate.
    ``max_nics`` caps the NICs of a domain that one collective drives (its channels).
    """

    collective: str
    algorithm: str
    protocol: str
    base_s: float = 0.0
    hop_s: float
    efficiency: float
    fill_s: float = 0.0
    fill_bytes: float = 1.0
    ramp_s: float = 0.0
    ramp_bytes: float = 1.0
    max_nics: float = inf

    def latency(self, *, hops: float, step_bytes: float, size_bytes: float) -> float:
        """What the transfer takes beyond its bytes at full rate."""
        filling = self.fill_s * step_bytes / (step_bytes + self.fill_bytes)
        ramp = self.ramp_s * size_bytes / (size_bytes + self.ramp_bytes)
        return self.base_s + ramp + hops * (self.hop_s + filling)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUpProfile:
    """Curves of one scale-up generation, fitted on links of ``link_bandwidth`` bytes/s per direction."""

    name: str
    link_bandwidth: float
    curves: tuple[DomainCurve, ...]
    collective_sms: int = 16  # SMs a collective kernel occupies at full rate
    random: float = 0.05
    site: float = 0.05
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def of(self, collective: str) -> tuple[DomainCurve, ...]:
        """The curves of one collective."""
        return tuple(c for c in self.curves if c.collective == collective)

    def on_link(self, bandwidth: float) -> ScaleUpProfile:
        """The same software on links of another rate: bandwidths scale, latencies and copies do not."""
        if bandwidth == self.link_bandwidth:
            return self
        scale = bandwidth / self.link_bandwidth
        curves = tuple(replace(c, bandwidth=c.bandwidth * scale) for c in self.curves)
        return replace(self, link_bandwidth=bandwidth, curves=curves)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleOutProfile:
    """Curves of one kind of network between domains."""

    name: str
    curves: tuple[NetworkCurve, ...]
    random: float = 0.1
    site: float = 0.15
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def of(self, collective: str) -> tuple[NetworkCurve, ...]:
        """The curves of one collective."""
        return tuple(c for c in self.curves if c.collective == collective)


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricProfile:
    """Everything fitted that a cluster's collectives need."""

    scale_up: ScaleUpProfile
    scale_out: ScaleOutProfile

    @property
    def name(self) -> str:
        """Both parts, scale-up first."""
        return f"{self.scale_up.name} + {self.scale_out.name}"


FabricOf: TypeAlias = Callable[[ClusterSpec], FabricProfile]


def fabric_for(cluster: ClusterSpec) -> FabricProfile:
    """The profiles of a cluster: its own ``fabric`` between nodes, else the default of its link kind."""
    site = _site_of(cluster)
    named = "" if is_path(cluster.fabric) else cluster.fabric
    scale_out = site.scale_out or load_scale_out(named or _default_scale_out(cluster))
    return FabricProfile(scale_up=scale_up_for(cluster), scale_out=scale_out)


def scale_up_for(cluster: ClusterSpec) -> ScaleUpProfile:
    """The scale-up profile of a cluster's site or generation, at the rate of its own links."""
    profile = _site_of(cluster).scale_up or load_scale_up(_default_scale_up(cluster))
    return profile.on_link(cluster.scale_up.link.bandwidth)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFabric:
    """What was fitted on one cluster; None: its generation's or network's own."""

    scale_up: ScaleUpProfile | None = None
    scale_out: ScaleOutProfile | None = None


@cache
def load_site(path: str) -> SiteFabric:
    """Read a site's file. Raises SpecError where it is not one."""
    data = read_yaml(Path(path)).plain()
    _check_version(data, path)
    unknown = set(data) - {"scale_up", "scale_out"}
    if unknown or not data:
        rule = "a site's fabric has the keys scale_up and scale_out, or one of them"
        raise SpecError(Problem(file=path, rule=rule))
    inside, across = data.get("scale_up"), data.get("scale_out")
    return SiteFabric(
        scale_up=_build(ScaleUpProfile, DomainCurve, inside) if inside else None,
        scale_out=_build(ScaleOutProfile, NetworkCurve, across) if across else None,
    )


def _site_of(cluster: ClusterSpec) -> SiteFabric:
    return load_site(cluster.fabric) if is_path(cluster.fabric) else SiteFabric()


def load_fabric_profile(name: str, cluster: ClusterSpec) -> FabricProfile:
    """The scale-out profile ``name`` with the scale-up profile of the cluster's own domain."""
    return replace(fabric_for(cluster), scale_out=load_scale_out(name))


@cache
def load_scale_up(name: str) -> ScaleUpProfile:
    """Read ``hardware_profiles/fabrics/scale_up/NAME.yaml``."""
    data = _read("scale_up", name)
    profile: ScaleUpProfile = _build(ScaleUpProfile, DomainCurve, data)
    return profile


@cache
def load_scale_out(name: str) -> ScaleOutProfile:
    """Read ``hardware_profiles/fabrics/scale_out/NAME.yaml``."""
    data = _read("scale_out", name)
    profile: ScaleOutProfile = _build(ScaleOutProfile, NetworkCurve, data)
    return profile


def fabric_names(kind: str) -> tuple[str, ...]:
    """The shipped profiles of a kind, ``scale_up`` or ``scale_out``."""
    folder = resources.files("hardware_profiles") / "fabrics" / kind
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def _read(kind: str, name: str) -> dict[str, Any]:
    path = resources.files("hardware_profiles") / "fabrics" / kind / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"no {kind} fabric profile {name!r}; there are {', '.join(fabric_names(kind))}")
    data: dict[str, Any] = read_yaml(path).plain()
    _check_version(data, str(path))
    return data


def _check_version(data: dict[str, Any], path: str) -> None:
    version = data.pop("format_version", None)
    if version != FORMAT_VERSION:
        rule = f"format_version is {version!r}; this release reads {FORMAT_VERSION}: fit the data again"
        raise SpecError(Problem(file=path, key_path="format_version", rule=rule))


def _build(profile_type: type[Any], curve_type: type[_Curve], data: dict[str, Any]) -> Any:
    curves: list[_Curve] = []
    for collective, rows in data.pop("curves").items():
        curves.extend(curve_type(collective=collective, **row) for row in rows)
    known = {f.name for f in fields(profile_type)}
    unknown = set(data) - known
    if unknown:
        raise ValueError(f"fabric profile {data.get('name')!r}: unknown keys {sorted(unknown)}")
    return profile_type(curves=tuple(curves), **data)


# the profile that stands for links no table was fitted on; their own datasheet rate still counts
_SCALE_UP = {"volta": "nvlink3-ampere", "ampere": "nvlink3-ampere", "hopper": "nvlink4-hopper"}
_SCALE_OUT = {"efa": "efa", "slingshot": "slingshot", "roce": "roce", "ethernet": "tcpxo"}


def _default_scale_up(cluster: ClusterSpec) -> str:
    if cluster.scale_up.topology == "torus":
        return "ici"
    if cluster.scale_up.link.kind != "nvlink":
        return "pcie"
    return _SCALE_UP.get(cluster.device.architecture, "nvlink5-blackwell")


def _default_scale_out(cluster: ClusterSpec) -> str:
    if cluster.scale_up.link.kind == "nvlink" and cluster.scale_up.domain_size > cluster.gpus_per_node:
        return "nvlink-racks"  # the long chains inside a rack set the latency, whatever joins the racks
    return _SCALE_OUT.get(cluster.scale_out.link.kind, "infiniband")
