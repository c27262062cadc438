"""From the words a publisher uses for a machine to the cluster and fabric profile that model it.

A fabric text such as ``AWS p5: 8xH100/node, EFA 3200G/node`` or ``HGX B200 x2, 8x NDR400 ConnectX-7/node``
names the GPUs of a node, its NICs and the kind of network. What it leaves out is taken from the usual machine
of its device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

from calibration.fit_network.rows import CollectiveRow
from simulator.network.placement import Placement
from simulator.spec.cluster import ClusterSpec, LinkSpec
from simulator.spec.load import load_cluster, load_device

# shipped cluster that has the device's usual node and NICs
USUAL_CLUSTER = {
    "a100": "dgx-a100",
    "h100": "dgx-h100-ndr",
    "h200": "dgx-h200",
    "h800": "h800-deepseek",
    "b200": "dgx-b200-ndr",
    "b300": "dgx-b300",
    "gb200": "gb200-nvl72",
    "gb300": "gb300-nvl72",
}
# first match wins: the fabric profile a network's name stands for, and the link kind of its NICs
NETWORKS = (
    (re.compile(r"TCPXO|GPUDirect-TCPX", re.I), "tcpxo", "ethernet"),
    (re.compile(r"\bp4de?\b", re.I), "efa-p4d", "efa"),
    (re.compile(r"\bEFA\b", re.I), "efa", "efa"),
    (re.compile(r"Slingshot", re.I), "slingshot", "slingshot"),
    (re.compile(r"RoCE|BlueField|\bA3 Ultra\b|Google.*h200|\d+GbE", re.I), "roce", "roce"),
    (re.compile(r"InfiniBand|\bIB\b|\bNDR|\bHDR|\bXDR|ConnectX|Quantum", re.I), "infiniband", "infiniband"),
)
NOT_TUNED = re.compile(r"under-?performing|mis-?tuned|default env", re.I)
_GPUS = re.compile(r"(\d+)\s*x\s*(?:[A-Z]{1,2}\d{3})", re.I)
_NICS = re.compile(r"(\d+)\s*x\s*(?:NDR|HDR|XDR)?\s*(\d+)\s*(?:G\b|GbE|Gb/s|Gbps|(?=\s))", re.I)
_TOTAL = re.compile(r"EFA\s+(\d{4})G(?:b/s|bps)?(?:/node)?", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The cluster a row was measured on, as far as its text tells.

    ``tuned`` is False where the text denies it.
    """

    cluster: ClusterSpec
    tuned: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmapped:
    """Why no machine could be made of a row's text."""

    reason: str


def machine_of(row: CollectiveRow) -> Machine | Unmapped:
    """The machine a row was measured on, or why that is unknown."""
    sharp = "collnet" in row.algorithm.lower()
    return _machine(row.device.lower(), row.fabric, row.ranks, row.nodes, sharp)


def placement_of(cluster: ClusterSpec, ranks: int, nodes: int) -> Placement:
    """Where a measured group's ranks sit, as its axis ``dp``: side by side, or one on every node."""
    spread = ranks == nodes and cluster.gpus_per_node > 1
    return Placement(cluster, tp=cluster.gpus_per_node if spread else 1, dp=ranks)


@cache
def _machine(device: str, fabric: str, ranks: int, nodes: int, sharp: bool) -> Machine | Unmapped:
    if not device:
        return Unmapped(reason="no device: name the file collectives_DEVICE.csv, or give it")
    cluster = _usual(device)
    if cluster is None:
        return Unmapped(
            reason=f"no shipped machine of device {device!r}; there are {', '.join(USUAL_CLUSTER)}"
        )
    per_node = -(-ranks // nodes)
    if per_node > cluster.gpus_per_node:
        return Unmapped(
            reason=f"{ranks} ranks on {nodes} nodes: a {cluster.name} node has {cluster.gpus_per_node}"
        )
    if nodes == 1 or cluster.gpus_per_node < ranks <= cluster.scale_up.domain_size:
        return Machine(cluster=cluster)
    stated = _GPUS.search(fabric)
    if stated and per_node < int(stated[1]) <= cluster.gpus_per_node:
        per_node = int(stated[1])
    return _multi_node(cluster, fabric, per_node, sharp)


def _multi_node(cluster: ClusterSpec, fabric: str, per_node: int, sharp: bool) -> Machine | Unmapped:
    found = next(((name, kind) for pattern, name, kind in NETWORKS if pattern.search(fabric)), None)
    racks = cluster.scale_up.domain_size > cluster.gpus_per_node
    if found is None and not racks:
        return Unmapped(reason=f"the fabric {fabric!r} names no network this release knows")
    profile, kind = found or ("", cluster.scale_out.link.kind)
    if racks:  # the long chains inside a rack set the latency, whatever joins the racks
        profile = "nvlink-racks"
    out = cluster.scale_out
    nics, rate = _nics(fabric) or (out.nics_per_node, out.link.bandwidth)
    link = LinkSpec(name=f"{kind} NIC", kind=kind, bandwidth=rate, latency_s=out.link.latency_s)
    scale_up = cluster.scale_up
    if scale_up.domain_size == cluster.gpus_per_node:
        scale_up = replace(scale_up, domain_size=per_node)
    return Machine(
        cluster=replace(
            cluster,
            gpus_per_node=per_node,
            scale_up=scale_up,
            scale_out=replace(out, link=link, nics_per_node=nics, tiers=(), in_network_reduction=sharp),
            fabric=profile,
        ),
        tuned=not NOT_TUNED.search(fabric),
    )


def _nics(fabric: str) -> tuple[int, float] | None:
    """NICs per node and bytes/s of each."""
    total = _TOTAL.search(fabric)
    if total:
        gigabits = int(total[1])
        nics = 32 if gigabits == 3200 else 8
        return nics, gigabits / nics / 8 * 1e9
    counts = [(int(n), int(g)) for n, g in _NICS.findall(fabric) if int(g) in (100, 200, 400, 800)]
    return (counts[0][0], counts[0][1] / 8 * 1e9) if counts else None


@cache
def _usual(device: str) -> ClusterSpec | None:
    name = USUAL_CLUSTER.get(device)
    if name:
        return load_cluster(name)
    canonical = load_device(device).name
    for candidate in USUAL_CLUSTER.values():
        cluster = load_cluster(candidate)
        if cluster.device.name == canonical:
            return cluster
    return None
