"""Rules of a cluster by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from simulator.spec import catalogue
from simulator.spec.cluster import ClusterSpec
from simulator.spec.errors import ABSENT, listed, nearest
from simulator.spec.rules.violation import Violation


def node_shape(cluster: ClusterSpec) -> Iterator[Violation]:
    """A scale-up domain is made of whole nodes, or a node of whole domains."""
    domain, node = cluster.scale_up.domain_size, cluster.gpus_per_node
    if domain % node and node % domain:
        rule = f"must divide gpus_per_node ({node}) or be a multiple of it"
        yield Violation("scale_up.domain_size", domain, rule, str(node))


def kernel_profile(cluster: ClusterSpec) -> Iterator[Violation]:
    """Someone has measured, or estimated, how fast the device runs kernels."""
    device = cluster.device
    name = device.kernels or device.name
    if not catalogue.is_path(name) and not catalogue.ships("kernels", name):
        rule = f"no kernel profile of hardware_profiles/kernels has the name {name!r}"
        alike = [
            other for other in catalogue.devices(device.architecture) if catalogue.ships("kernels", other)
        ]
        mistyped = nearest(name, catalogue.names("kernels"), few=0) if device.kernels else ""
        near = mistyped or listed(alike)
        remedy = f"that of a similar device{': ' * bool(near)}{near}, or a .yaml file"
        yield Violation("device.kernels", device.kernels or ABSENT, rule, remedy)


def fabric_profile(cluster: ClusterSpec) -> Iterator[Violation]:
    """A named fabric profile exists."""
    if catalogue.is_path(cluster.fabric):
        if not Path(cluster.fabric).is_file():
            yield Violation(
                "fabric", cluster.fabric, "no such file", "a file that stepcast calibrate fit wrote"
            )
    elif cluster.fabric and not catalogue.ships("fabrics", cluster.fabric):
        known = catalogue.names("fabrics")
        rule = f"must name one of hardware_profiles/fabrics/scale_out: {', '.join(known)}"
        yield Violation("fabric", cluster.fabric, rule, nearest(cluster.fabric, known, few=0))


CLUSTER_RULES: tuple[Callable[[ClusterSpec], Iterator[Violation]], ...] = (
    node_shape,
    kernel_profile,
    fabric_profile,
)
