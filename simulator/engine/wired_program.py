"""One device's program in which only what data-parallel traffic meets is tasks; all else is quiet steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from simulator.engine.block import Block
from simulator.engine.costing import PP
from simulator.engine.program import DeviceProgram
from simulator.engine.quiet_program import QuietProgram
from simulator.engine.tasks import COMPUTE, Task, Token
from simulator.engine.wiring import DeviceWiring, Edge, Sent, Work
from simulator.graph.operators import Collective
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Action

NOTHING = Block(0.0, {}, 0.0, {}, {})


def meets_edges_only(plan: RunPlan) -> bool:
    """Whether data-parallel traffic meets no actions but a stage's first forward and last gradient."""
    data = plan.data
    if data.fully_sharded:
        return data.sharding.keep == "step" and data.sharding.reduce == "step"
    return data.zero != 2


@dataclass(slots=True)
class WiredProgram(DeviceProgram):
    """Builds the streams of one device around its quiet steps."""

    posts: dict[Token, Sent] = field(default_factory=dict)

    def build_around(self, wiring: DeviceWiring, *, notes: bool = False) -> QuietProgram:
        """Fills the streams; the quiet steps between their tasks are in what is returned.

        ``notes``: whether times of steps and messages are kept.
        """
        self._begin([each for edge in wiring.edges for each in edge.action.parts], wiring.held)
        left, done = wiring.repeats.copy(), 0
        for edge in wiring.edges:
            if self._meets(edge):
                self._quiet(done, edge.begin)
                steps, done = wiring.steps[edge.begin : edge.stop], edge.stop
                for step in steps:
                    left[step.work] -= 1
                    for sent in step.sends:
                        self.posts[sent.after] = sent
                self._act(edge.action, steps[0].waits)
        self._quiet(done, len(wiring.steps))
        self._finish(wiring.trained)
        return self._program(wiring, left, notes=notes)

    def _meets(self, edge: Edge) -> bool:
        """Whether an action is not quiet: traffic meets it, or its weights have to be prepared.

        The first forward in a pair may come with a last gradient.
        """
        if not edge.is_first:
            return self._traffic.meets_gradients
        parts, traffic = edge.action.parts, self._traffic
        if traffic.meets_parameters or (len(parts) > 1 and traffic.meets_gradients):
            return True
        return any(self.plan.chunks[each.stage].has_preparation for each in parts)

    def _quiet(self, start: int, stop: int) -> None:
        if start < stop:
            self._compute_task(Task("quiet", COMPUTE, 0.0, steps=range(start, stop)))

    def _program(self, wiring: DeviceWiring, left: Mapping[int, int], *, notes: bool) -> QuietProgram:
        """``left``: how many quiet steps have each work."""
        blocks = [self._block(work) if left[number] else NOTHING for number, work in enumerate(wiring.works)]
        gather = self.plan.message_gather
        return QuietProgram(
            wiring=wiring,
            seconds=[block.seconds for block in blocks],
            profiles=[block.profile for block in blocks],
            hops=list(self._hops_of(wiring)),
            exchanges={side: self._exchange_task(exchange) for side, exchange in wiring.exchanges.items()},
            gather=None if gather is None else self._gather_task(gather),
            posts=self.posts,
            notes=notes,
        )

    def _gather_task(self, gather: Collective) -> Task:
        return self._costs.collective(gather, COMPUTE, (), None).task

    def _hops_of(self, wiring: DeviceWiring) -> Iterator[Task]:
        for route in wiring.routes:
            seconds, flow = self.hops.hop(route.source, route.target)
            yield Task("send", PP, seconds, flow=flow)

    def _block(self, work: Work) -> Block:
        (stage, kind), *other = work
        if other:
            ((back, gradient),) = other
            return self.blocks.chain(self._together(Action(kind, stage, 0), Action(gradient, back, 0)))
        return self.blocks.action(self.plan.chunks[stage].layers, kind)
