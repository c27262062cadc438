"""What of a machine is slow or uneven in a run, as the engine takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import lcm

from simulator.engine.conditions import SOUND, Condition
from simulator.engine.disturbances import BlocksOf, Disturbances
from simulator.engine.jitter import KernelSpread, Spread
from simulator.engine.sampling import Draws
from simulator.network.collectives import Network
from simulator.network.fabric import FabricOf, fabric_for
from simulator.network.placement import GroupAxis
from simulator.preparation.prepared import placement_of
from simulator.schedule.definition import Schedule
from simulator.spec.noise import Slow
from simulator.spec.run import RunSpec

INSIDE_BLOCKS: tuple[GroupAxis, ...] = (
    "tp",
    "tp_row",
    "tp_col",
    "tp_depth",
    "cp",
    "cp_inner",
    "cp_outer",
    "ep",
    "etp",
)


def network_of(
    run: RunSpec, copies: int, condition: Condition = SOUND, fabric: FabricOf = fabric_for
) -> Network:
    """The network as ranks in a condition have it: a ring is as fast as its slowest link."""
    cluster = run.cluster
    if condition.nic < 1.0 or condition.nvlink < 1.0:
        up, out = cluster.scale_up, cluster.scale_out
        cluster = replace(
            cluster,
            scale_up=replace(up, link=replace(up.link, bandwidth=up.link.bandwidth * condition.nvlink)),
            scale_out=replace(out, link=replace(out.link, bandwidth=out.link.bandwidth * condition.nic)),
        )
    return Network(cluster, placement_of(replace(run, cluster=cluster), copies), fabric(cluster))


def disturbances_of(run: RunSpec, schedule: Schedule, blocks: BlocksOf) -> Disturbances | None:
    """Jitter and stragglers, ``None`` where there are none. ``blocks``: of ranks in some condition."""
    jitter, sampled = run.jitter, run.simulation.ranks == "all"
    if not jitter and not run.noise.slow:
        return None
    draws = Draws(
        kernels=KernelSpread(*jitter.kernels),
        communication=jitter.communication,
        rank=jitter.rank,
        seed=run.simulation.seed,
    )
    return Disturbances(
        blocks=blocks,
        slow=_slow_places(run, schedule.directions),
        jitters=bool(jitter),
        rank=jitter.rank,
        draws=draws if jitter and sampled else None,
    )


def spread_of(run: RunSpec, copies: int) -> Spread | None:
    """The jitter of single kernels and messages, where it is not drawn."""
    jitter, p = run.jitter, run.parallelism
    if run.simulation.ranks == "all" or not (any(jitter.kernels) or jitter.communication):
        return None
    placement = placement_of(run, copies)
    return Spread(
        kernels=KernelSpread(*jitter.kernels),
        communication=jitter.communication,
        rank=jitter.rank,
        ranks={axis: placement.group(axis).ranks for axis in INSIDE_BLOCKS},
        groups=lcm(p.tp * p.cp, p.ep * ((p.etp or p.tp) if run.model.is_moe else 1)),
    )


def _slow_places(run: RunSpec, copies: int) -> dict[tuple[int, int], Condition]:
    """Pipeline device and place within it of every rank that is slow by name."""
    found: dict[tuple[int, int], Condition] = {}
    placement, p = placement_of(run, copies), run.parallelism
    for slow in run.noise.slow:
        condition = Condition(compute=slow.compute, nic=slow.nic, nvlink=slow.nvlink)
        for rank in _ranks(slow, run):
            at = placement.coordinates(rank)
            place = (at["pp"], (at["dp"] * p.cp + at["cp"]) * p.tp + at["tp"])
            found[place] = found.get(place, SOUND).worse(condition)
    return found


def _ranks(slow: Slow, run: RunSpec) -> Iterator[int]:
    if slow.rank is not None:
        yield slow.rank
    if slow.node is not None:
        size = run.cluster.gpus_per_node
        yield from range(slow.node * size, min((slow.node + 1) * size, run.gpus))
