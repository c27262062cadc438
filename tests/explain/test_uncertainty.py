"""The interval of a step time agrees with drawing all errors of its parts and simulating anew."""

from __future__ import annotations

from collections import defaultdict
from math import log
from random import Random
from typing import Any

import pytest

from simulator.engine.costing import Cost, OperatorCosts
from simulator.explain.uncertainty import RECIPE
from simulator.graph.operators import Attention, Gemm, MemoryBound, Operator
from simulator.shared import Shared
from simulator.simulate import simulate
from simulator.spec.load import load_run

CLOCK_ERROR = 0.08
RUN = load_run(
    "llama3-8b-8-h100",
    (
        "model.num_hidden_layers=8",
        "parallelism={tp: 2, pp: 2, sequence_parallel: true}",
        "training.global_batch_size=16",
        "simulation.sustained=0.6",  # so low that the limit reaches every product
        f"simulation.sustained_error={CLOCK_ERROR}",
    ),
)
DRAWS = 100  # and as many with the opposite signs


class Draw:
    """One draw of every error: of the clock, of a family of kernels or links, of each operator by itself."""

    def __init__(self, seed: int, sign: float) -> None:
        self._random, self._sign = Random(seed), sign
        self._family: defaultdict[str, float] = defaultdict(self._normal)
        self._own: defaultdict[Operator, float] = defaultdict(self._normal)
        self.clock, self.recipe = self._normal(), self._normal()

    def _normal(self) -> float:
        return self._sign * self._random.gauss(0.0, 1.0)

    def applied(self, op: Operator, cost: Cost) -> Cost:
        family = "memory" if isinstance(op, MemoryBound) else cost.category
        error = cost.site * self._family[family] + cost.random * self._own[op]
        error += CLOCK_ERROR * self.clock * isinstance(op, Gemm | Attention)
        return cost._replace(seconds=cost.seconds * max(0.1, 1.0 + error))


@pytest.mark.slow
def test_sampling_the_errors_gives_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = OperatorCosts._compute
    predicted = simulate(RUN)
    steps = []
    for seed in range(DRAWS):
        for sign in (1.0, -1.0):
            draw = Draw(seed, sign)

            def drawn(self: Any, op: Operator, draw: Draw = draw) -> Cost:
                return draw.applied(op, compute(self, op))

            monkeypatch.setattr(OperatorCosts, "_compute", drawn)
            steps.append(simulate(RUN, shared=Shared()).step_time_s * (1.0 + RECIPE * draw.recipe))
    steps.sort()
    low, high = steps[len(steps) // 10], steps[-len(steps) // 10]
    p10, p90 = predicted.step_time_interval_s
    assert log(high / low) == pytest.approx(log(p90 / p10), rel=0.15)
    middle = steps[len(steps) // 2]
    assert middle == pytest.approx(predicted.step_time_s, rel=0.02)
    inside = sum(p10 <= step <= p90 for step in steps) / len(steps)
    assert 0.7 <= inside <= 0.9
