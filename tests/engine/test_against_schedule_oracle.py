"""Every schedule: the engine, which runs layers and streams, agrees with the longest paths of the order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.schedule.evaluate import Times, evaluate
from simulator.schedule.registry import SCHEDULES

seconds = st.floats(0.01, 10.0)
SYNCHRONOUS = [name for name, s in SCHEDULES.items() if s.synchronous and not s.forward_only]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(half=st.integers(1, 3), rounds=st.integers(2, 3), F=seconds, B=seconds, W=seconds)
@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_engine_and_longest_path_agree(pipeline, name, half, rounds, F, B, W):
    schedule, p = SCHEDULES[name], 2 * half
    v = schedule.natural_v
    m = rounds * p
    if schedule.check(p, m, v):
        return
    oracle = evaluate(schedule.order(p, m, v), Times(F=F, B=B, W=W), v)
    step = pipeline(name, p, m, v, (F, B, W), overlap_p2p=True)
    assert step.seconds == pytest.approx(max(max(ends) for ends in oracle.end), rel=1e-9)
