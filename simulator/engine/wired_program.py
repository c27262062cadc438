"""One device's program in which only what data-parallel traffic meets is tasks; all else is quiet steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from simulator.engine.block import Block
from simulator.engine.data_traffic import collective
from simulator.engine.program import PP, DeviceProgram
from simulator.engine.quiet_program import QuietProgram
from simulator.engine.tasks import COMPUTE, Task, Token
from simulator.engine.wiring import DeviceWiring, Sent, Work
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
        order, done = wiring.order, 0
        edges = [each for index in wiring.edges for each in order[index].parts]
        self._begin(edges, {stage for work in wiring.works for stage, _ in work})
        met = [index for index in wiring.edges if self._meets(order[index], index in wiring.firsts)]
        for index in met:
            self._quiet(done, wiring.runs_at[index])
            done = wiring.begins[index + 1]
            steps = wiring.steps[wiring.runs_at[index] : done]
            self.posts |= {sent.after: sent for step in steps for sent in step.sends}
            self._act(order[index], steps[0].waits)
        self._quiet(done, len(wiring.steps))
        self._finish(sorted({stage for work in wiring.works for stage, kind in work if kind}))
        return self._program(wiring, met, notes=notes)

    def _meets(self, action: Action, is_first: bool) -> bool:
        """Whether an action is not quiet: traffic meets it, or its weights have to be prepared.

        The first forward in a pair may come with a last gradient.
        """
        if is_first and any(self.plan.chunks[each.stage].has_preparation for each in action.parts):
            return True
        either = not is_first or action.partner is not None
        return (is_first and self._traffic.meets_parameters) or (either and self._traffic.meets_gradients)

    def _quiet(self, start: int, stop: int) -> None:
        if start < stop:
            self._compute_task(Task("quiet", COMPUTE, 0.0, steps=range(start, stop)))

    def _program(self, wiring: DeviceWiring, met: Collection[int], *, notes: bool) -> QuietProgram:
        tasks = Counter(
            step.work
            for index in met
            for step in wiring.steps[wiring.runs_at[index] : wiring.begins[index + 1]]
        )
        blocks = [
            self._block(work) if wiring.repeats[number] > tasks[number] else NOTHING
            for number, work in enumerate(wiring.works)
        ]
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
        _, task = collective(gather, COMPUTE, (), None, self.blocks.costs)
        return task if task.flow is None else task._replace(flow=self._own(task.flow))

    def _hops_of(self, wiring: DeviceWiring) -> Iterator[Task]:
        for route in wiring.routes:
            seconds, flow = self._hop(route.source, route.target)
            yield Task("send", PP, seconds, flow=flow)

    def _block(self, work: Work) -> Block:
        (stage, kind), *other = work
        if other:
            ((back, gradient),) = other
            return self.blocks.chain(self._together(Action(kind, stage, 0), Action(gradient, back, 0)))
        return self.blocks.action(self.plan.chunks[stage].layers, kind)
