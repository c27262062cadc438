"""Collects what pictures of a step show beyond its numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from simulator.cost.kernels import peak_flops
from simulator.details import Communication, Counter, Details, GroupShape, OperatorUse, Work
from simulator.engine.costing import OperatorCosts, exposed
from simulator.engine.link_use import Series, link_use
from simulator.engine.messages import Pipeline
from simulator.engine.step import StepReplay
from simulator.engine.timeline import arrows, shown, work
from simulator.engine.uplinks import Above, directions, switches_of
from simulator.explain.census import census
from simulator.graph.operators import Awaited
from simulator.memory.activations import Passes
from simulator.memory.over_time import memory_over_time
from simulator.memory.report import MemoryReport
from simulator.network.placement import GroupAxis, Placement
from simulator.partition.plan import RunPlan
from simulator.spec.cluster import ClusterSpec

_EXPOSED = "exposed_"
_AXES: Mapping[str, GroupAxis] = {"tp": "tp", "cp": "cp", "ep": "ep", "pp": "pp", "dp": "dp_cp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A simulated step and what it was made from."""

    cluster: ClusterSpec
    placement: Placement
    plan: RunPlan
    pipeline: Pipeline
    step: StepReplay
    memory: MemoryReport
    costs: OperatorCosts
    every_operator: bool
    ranks_per_device: int  # simulated ones
    process: Callable[[int], str]  # the timeline's name of a simulated rank


def details(subject: Subject) -> Details:
    """Everything that pictures need."""
    step, device = subject.step, subject.cluster.device
    ranks = subject.ranks_per_device
    done = tuple(work(step.events, step.orders, subject.pipeline, ranks_per_device=ranks))
    operators = tuple(_operators(subject))
    return Details(
        work=done,
        arrows=tuple(arrows(step.events)),
        counters=(*_memory(subject, done), *_links(subject)),
        operators=operators,
        communication=_communication(subject, operators),
        groups=_groups(subject),
        memory_bandwidth=device.memory_bandwidth,
        peak_flops={dtype: peak_flops(device, dtype) for use in operators if (dtype := use.dtype)},
    )


def _operators(subject: Subject) -> Iterator[OperatorUse]:
    """Distinct operators of the layers, first seen first."""
    for op, runs, _ in census(subject.plan, subject.pipeline.devices):
        cost = subject.costs.cost(op)
        moved = getattr(op, "size_bytes", op.bytes if not isinstance(op, Awaited) else 0.0)
        yield OperatorUse(
            name=op.name,
            category=cost.category,
            dtype=getattr(op, "dtype", ""),
            runs=runs,
            seconds=cost.seconds,
            flops=op.flops,
            bytes=moved,
        )


def _communication(subject: Subject, operators: Sequence[OperatorUse]) -> dict[str, Communication]:
    """By axis: that inside layers from their operators, unless these were replayed, the rest as it ran."""
    total: defaultdict[str, float] = defaultdict(float)
    ranks = max(1, len({rank for rank, _ in subject.step.events.records}))
    for record in shown(subject.step.events):
        total[record.task.category] += (record.end - record.start) / ranks
    if not subject.every_operator:
        for use in operators:
            total[use.category] += use.runs * use.seconds
    spent = subject.step.breakdown
    found = {}
    for axis in _AXES:
        seconds, waited = total[exposed(axis)], spent.get(exposed(axis), 0.0)
        if seconds or waited:
            found[axis] = Communication(total_s=max(seconds, waited), exposed_s=waited)
    return found


def _groups(subject: Subject) -> dict[str, GroupShape]:
    found = {}
    tiers = subject.cluster.scale_out.tiers
    for name, axis in _AXES.items():
        group = subject.placement.group(axis)
        if group.ranks > 1:
            found[name] = GroupShape(
                ranks=group.ranks,
                ranks_per_node=group.ranks_per_node,
                nodes=group.nodes,
                domains=group.domains,
                tier=tiers[group.tier].name if group.tier >= 0 else "",
            )
    return found


def _memory(subject: Subject, done: Sequence[Work]) -> Iterator[Counter]:
    passes = Passes(subject.plan)
    by_device: defaultdict[int, list[Work]] = defaultdict(list)
    for piece in done:
        by_device[piece.device].append(piece)
    for device, stage in enumerate(subject.memory.stages):
        times, values = memory_over_time(passes, stage, subject.step.orders[device], by_device[device])
        yield Counter(
            device=device,
            process=subject.process(device * subject.ranks_per_device),
            name="memory",
            unit="bytes",
            capacity=subject.memory.capacity_bytes,
            times_s=times,
            values=values,
        )


def _links(subject: Subject) -> Iterator[Counter]:
    capacities = subject.costs.capacities
    devices, ranks = subject.pipeline.devices, subject.ranks_per_device
    shown = range(0, devices * ranks, ranks)
    use = link_use(subject.step.events, shown)
    carried = {(kind, owner): series for (kind, owner), series in use.items() if isinstance(owner, int)}
    for (kind, device), (times, values) in (carried | _on_uplinks(subject, use)).items():
        yield Counter(
            device=device,
            process=subject.process(device * subject.ranks_per_device),
            name=kind,
            unit="bytes/s",
            capacity=capacities[kind],
            times_s=times,
            values=values,
        )


def _on_uplinks(
    subject: Subject, use: Mapping[tuple[str, int | Above], Series]
) -> dict[tuple[str, int], Series]:
    """By kind and device, the busiest uplinks above it, per rank below them."""
    found = {}
    for device, up in product(range(subject.pipeline.devices), subject.costs.uplinks):
        above = switches_of(up, device, every_rank=subject.ranks_per_device > 1)
        for kind in directions(up.name):
            courses = [use[kind, owner] for owner in above if (kind, owner) in use]
            if courses:
                found[kind, device] = max(courses, key=lambda course: max(course[1]))
    return found
