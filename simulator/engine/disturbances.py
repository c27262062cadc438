"""What is slow in a run: named stragglers, and those that jitter makes on average."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TypeAlias

from simulator.engine.block import Blocks
from simulator.engine.classes import ReplicaClass, cell_size, replica_classes
from simulator.engine.conditions import SOUND, Condition, Places
from simulator.engine.costing import NIC_IN, NIC_OUT, PORT_IN, PORT_OUT
from simulator.engine.links import Capacities
from simulator.engine.sampling import Draws
from simulator.engine.stragglers import Work, expected_stragglers
from simulator.engine.world import Layout
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import RunPlan

BlocksOf: TypeAlias = Callable[[Condition, Condition], Blocks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbances:
    """``blocks``: of a condition, and of the worst one in its groups of data parallelism.

    ``jitters``: whether equal work takes unequal time; ranks then differ by ``rank`` for a whole step. With
    ``draws`` jitter is drawn for every rank instead.
    """

    blocks: BlocksOf
    slow: Places = field(default_factory=dict)
    jitters: bool = False
    rank: float = 0.0
    draws: Draws | None = None

    def classes(self, layout: Layout, plan: RunPlan, held: Sequence[Sequence[int]]) -> Sequence[ReplicaClass]:
        """The replicas to simulate; ``held`` lists the chunks of each device."""
        uplinks = self.blocks(SOUND, SOUND).costs.uplinks
        return replica_classes(layout, self._places(layout, plan, held), uplinks)

    def _places(self, layout: Layout, plan: RunPlan, held: Sequence[Sequence[int]]) -> Places:
        if not self.jitters or self.draws is not None:
            return self.slow
        usual = self.blocks(SOUND, SOUND)
        work = [_work(plan, usual, chunks) for chunks in held]
        places = expected_stragglers(layout, work, self.rank)
        size = cell_size(layout)
        for (device, place), condition in self.slow.items():
            first = (device, place // size * size)
            places[first] = places[first].worse(condition)
        return places

    def of_rank(self, layout: Layout, device: int, place: int, *, alone: bool) -> Condition:
        """The condition of a rank: its own (``alone``), or where blocks hold all of its cell the cell's."""
        if alone:
            return self.slow.get((device, place), SOUND)
        size = cell_size(layout)
        first = place // size * size
        return worst(self.slow.get((device, other), SOUND) for other in range(first, first + size))


def link_capacities(
    usual: Mapping[str, float], conditions: Iterable[tuple[Hashable, Condition]]
) -> Capacities:
    """Of all links: as usual, but for slow ones, by whose they are and in what condition."""
    found: dict[str | tuple[str, Hashable], float] = dict(usual.items())
    for owner, condition in conditions:
        shares = {NIC_OUT: condition.nic, NIC_IN: condition.nic}
        shares |= {PORT_OUT: condition.nvlink, PORT_IN: condition.nvlink}
        found |= {(kind, owner): share * usual[kind] for kind, share in shares.items() if share != 1.0}
    return found


def worst(conditions: Iterator[Condition]) -> Condition:
    """The slowest, part by part."""
    return reduce(Condition.worse, conditions, SOUND)


def links(condition: Condition) -> Condition:
    """Only what concerns links."""
    return condition._replace(compute=1.0)


def _work(plan: RunPlan, blocks: Blocks, chunks: Sequence[int]) -> Work:
    """A device's forwards and backwards of a step."""
    layers: list[LayerShare] = [layer for chunk in chunks for layer in plan.chunks[chunk].layers]
    run = [blocks.block(segment) for layer in layers for segment in (layer.forward, layer.backward)]
    return Work(
        plan.microbatches * sum(block.seconds for block in run),
        plan.microbatches * sum(block.variance for block in run),
    )
