"""Why one layout is slower than another: the differences of their breakdowns, and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from simulator.sweep.evaluation import Evaluation

EXPLAINED = 0.8  # causes are named until they explain this share of what was lost


class Difference(NamedTuple):
    """Seconds that a layout spends more (or, negative, less) on a cause than the one it is compared with."""

    cause: str
    seconds: float


def differences(slower: Evaluation, faster: Evaluation) -> list[Difference]:
    """Every cause's difference, the largest loss first. They sum to the difference of the step times."""
    causes = dict.fromkeys((*slower.breakdown_s, *faster.breakdown_s))
    found = (
        Difference(cause, slower.breakdown_s.get(cause, 0.0) - faster.breakdown_s.get(cause, 0.0))
        for cause in causes
    )
    return sorted(found, key=lambda difference: -difference.seconds)


def main_losses(slower: Evaluation, faster: Evaluation, most: int = 3) -> list[Difference]:
    """The largest losses, as many as it takes to explain most of them."""
    losses = [difference for difference in differences(slower, faster) if difference.seconds > 0]
    lost, named = sum(loss.seconds for loss in losses), 0.0
    chosen = []
    for loss in losses[:most]:
        if named >= EXPLAINED * lost:
            break
        chosen.append(loss)
        named += loss.seconds
    return chosen


def pareto_front(
    evaluations: Iterable[Evaluation], costs: Sequence[Callable[[Evaluation], float]]
) -> list[Evaluation]:
    """Those that no other beats in one of two costs without being worse in the other, cheapest first."""
    front: list[Evaluation] = []
    first, second = costs
    for evaluation in sorted(evaluations, key=lambda e: (first(e), second(e), e.number)):
        if not front or second(evaluation) < second(front[-1]):
            front.append(evaluation)
    return front
