"""What a better machine would change: the step again with one hardware figure 10 % better at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import NamedTuple

from simulator.network.fabric import FabricProfile, fabric_for
from simulator.result import Result, WhatIf
from simulator.shared import Shared
from simulator.simulate import simulate
from simulator.spec.cluster import ClusterSpec, ScaleOut
from simulator.spec.run import RunSpec

MORE, LESS = 1.1, 0.9


class Change(NamedTuple):
    """One figure: its name, the factor on it, and the machine with it."""

    figure: str
    factor: float
    cluster: Callable[[ClusterSpec, float], ClusterSpec]
    latencies: float = 1.0  # factor on the fitted latencies of the links


def what_if(run: RunSpec, result: Result) -> tuple[WhatIf, ...]:
    """Every figure in turn; ``result`` is the run's own.

    Figures that do not matter to the step (a network it does not use, say) are there too, with a change of 0.
    """
    return tuple(_outcome(change, run, result) for change in CHANGES)


def with_what_if(result: Result, run: RunSpec) -> Result:
    """The result with its ``what_if``."""
    return replace(result, what_if=what_if(run, result))


def _outcome(change: Change, run: RunSpec, result: Result) -> WhatIf:
    shared = Shared(fabric=lambda cluster: _sooner(fabric_for(cluster), change.latencies))
    other = simulate(replace(run, cluster=change.cluster(run.cluster, change.factor)), shared=shared)
    return WhatIf(
        figure=change.figure,
        factor=change.factor,
        step_time_s=other.step_time_s,
        elasticity=log(other.step_time_s / result.step_time_s) / log(change.factor),
        verdict=other.memory["verdict"],
    )


def _peak_flops(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    rates = {precision: rate * factor for precision, rate in cluster.device.peak_flops.items()}
    return replace(cluster, device=replace(cluster.device, peak_flops=rates))


def _memory_bandwidth(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    bandwidth = cluster.device.memory_bandwidth * factor
    return replace(cluster, device=replace(cluster.device, memory_bandwidth=bandwidth))


def _memory_capacity(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    return replace(cluster, device=replace(cluster.device, memory_bytes=cluster.device.memory_bytes * factor))


def _scale_up(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    link = cluster.scale_up.link
    link = replace(link, bandwidth=link.bandwidth * factor)
    return replace(cluster, scale_up=replace(cluster.scale_up, link=link))


def _scale_out(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    link = cluster.scale_out.link
    link = replace(link, bandwidth=link.bandwidth * factor)
    return replace(cluster, scale_out=replace(cluster.scale_out, link=link))


def _host_link(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    link = cluster.host.link
    link = replace(link, bandwidth=link.bandwidth * factor)
    return replace(cluster, host=replace(cluster.host, link=link))


def _host(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    speed = cluster.host.thread_speed * factor
    return replace(cluster, host=replace(cluster.host, thread_speed=speed))


def _switches(cluster: ClusterSpec, factor: float) -> ClusterSpec:
    out: ScaleOut = cluster.scale_out
    tiers = tuple(replace(tier, latency_s=tier.latency_s * factor) for tier in out.tiers)
    return replace(cluster, scale_out=replace(out, tiers=tiers))


def _sooner(fabric: FabricProfile, factor: float) -> FabricProfile:
    up, out = fabric.scale_up, fabric.scale_out
    domain = tuple(replace(c, base_s=factor * c.base_s, hop_s=factor * c.hop_s) for c in up.curves)
    network = tuple(replace(c, base_s=factor * c.base_s, hop_s=factor * c.hop_s) for c in out.curves)
    return FabricProfile(scale_up=replace(up, curves=domain), scale_out=replace(out, curves=network))


CHANGES = (
    Change("peak_flops", MORE, _peak_flops),
    Change("memory_bandwidth", MORE, _memory_bandwidth),
    Change("scale_up_bandwidth", MORE, _scale_up),
    Change("scale_out_bandwidth", MORE, _scale_out),
    Change("latency", LESS, _switches, latencies=LESS),
    Change("host_link_bandwidth", MORE, _host_link),
    Change("host_speed", MORE, _host),
    Change("memory_capacity", MORE, _memory_capacity),
)
