"""A forward and a backward of different microbatches as one block, each beside the other's all-to-alls.

Megatron-LM's ``TransformerLayerSchedulePlan`` and DeepSeek-V3 (arXiv 2412.19437, section 3.2.1) interleave
the parts of a layer between its all-to-alls: backward to the combine's gradient, forward to the dispatch,
backward of the experts, and so on, backward first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import zip_longest

from simulator.engine.costing import OperatorCosts
from simulator.graph.operators import Collective, Gemm, GroupedGemm
from simulator.partition.segment import COMPUTE, Segment, Step

Phase = list[int]  # positions of a segment's steps


def interleaved(forward: Segment, backward: Segment, costs: OperatorCosts, *, delay_wgrad: bool) -> Segment:
    """Both segments' steps, phase by phase.

    ``delay_wgrad``: a phase's weight gradients run after its communication has begun, beside it (Megatron-
    LM's ``--delay-wgrad-compute``). Products beside an all-to-all lose the processors it takes.
    """
    joint = _Joint(costs)
    places: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for phases in zip_longest(_phases(backward), _phases(forward)):
        for segment, phase, place in zip((backward, forward), phases, places, strict=True):
            if phase is not None:
                joint.append(segment, _late_gradients(segment, phase) if delay_wgrad else phase, place)
    return Segment(tuple(joint.steps))


def communicates(segment: Segment) -> bool:
    """Whether rows travel between ranks in it."""
    return any(_is_exchange(step) for step in segment.steps)


@dataclass(slots=True)
class _Joint:
    """Steps of both segments, renumbered, and the all-to-all that the next ones run beside."""

    costs: OperatorCosts
    steps: list[Step] = field(default_factory=list)
    running: int | None = None
    left_s: float = 0.0  # of the running all-to-all, not yet spent on products beside it

    def append(self, segment: Segment, phase: Phase, place: dict[int, int]) -> None:
        """One phase; ``place`` maps the segment's positions to those in the joint one."""
        exchange: int | None = None
        for index in phase:
            step = segment.steps[index].moved(place.__getitem__)
            if index == phase[0]:
                step = replace(step, opens_part=True)
            place[index] = len(self.steps)
            if _is_exchange(step):
                exchange = len(self.steps)
            elif step.stream == COMPUTE:
                step = self._beside(step)
            self.steps.append(step)
        self.running = exchange
        self.left_s = self.costs.cost(self.steps[exchange].op).seconds if exchange is not None else 0.0

    def _beside(self, step: Step) -> Step:
        """A product shares the processors while the other microbatch's all-to-all lasts."""
        if self.running is None or self.left_s <= 0:
            return step
        self.left_s -= self.costs.cost(step.op).seconds
        shares = isinstance(step.op, Gemm | GroupedGemm)
        return replace(step, beside=(*step.beside, self.running)) if shares else step


def _is_exchange(step: Step) -> bool:
    return isinstance(step.op, Collective) and step.op.kind == "all_to_all" and step.op.axis == "ep"


def _phases(segment: Segment) -> list[Phase]:
    """Positions up to and with each run of all-to-alls, and the rest."""
    phases: list[Phase] = [[]]
    for index, step in enumerate(segment.steps):
        if index and _is_exchange(segment.steps[index - 1]) and not _is_exchange(step):
            phases.append([])
        phases[-1].append(index)
    return phases


def _late_gradients(segment: Segment, phase: Phase) -> Phase:
    """Weight gradients behind the rest of the phase, where nothing else in it needs them."""
    needed = {wait for index in phase for wait in segment.steps[index].waits}
    late = [i for i in phase if segment.steps[i].weight_gradient and i not in needed]
    return [i for i in phase if i not in late] + late
