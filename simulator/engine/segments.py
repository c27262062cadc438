"""The segments of an action, and where they communicate between experts' ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from simulator.engine.overlap import communicates
from simulator.partition.layer_share import LayerShare
from simulator.partition.segment import Segment
from simulator.schedule.actions import Kind


def expert_runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Runs of segments that each end with one that communicates between experts' ranks, and the rest."""
    runs: list[list[Segment]] = [[]]
    for segment in segments:
        runs[-1].append(segment)
        if communicates(segment):
            runs.append([])
    return runs if runs[-1] else runs[:-1]


def action_segments(layers: Sequence[LayerShare], kind: Kind) -> list[Segment]:
    """The segments of an action, in the order in which they run."""
    if kind is Kind.F:
        return [layer.forward for layer in layers]
    attribute = {Kind.B: "backward", Kind.I: "input_gradient", Kind.W: "weight_gradient"}[kind]
    return [getattr(layer, attribute) for layer in reversed(layers)]


def paired_segments(
    ahead: Sequence[Segment], back: Sequence[Segment], join: Callable[[Segment, Segment], Segment]
) -> list[Segment]:
    """A forward's and a backward's, layer by layer: two that both communicate joined, the rest in a row."""
    paired: list[Segment] = []
    nothing: list[Segment] = []
    for backward, forward in zip_longest(expert_runs(back), expert_runs(ahead), fillvalue=nothing):
        if backward and forward and communicates(backward[-1]) and communicates(forward[-1]):
            paired += [*backward[:-1], *forward[:-1], join(forward[-1], backward[-1])]
        else:
            paired += [*backward, *forward]
    return paired
