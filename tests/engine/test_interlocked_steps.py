"""Steps that interlock: asynchronous schedules, and optimizers whose step is validated afterwards."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.schedule.assessment import assess
from simulator.schedule.evaluate import Times, evaluate
from simulator.schedule.registry import SCHEDULES

seconds = st.floats(0.1, 10.0)
shared = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@shared
@given(p=st.integers(1, 5), extra=st.integers(0, 6), F=seconds, B=seconds, W=seconds)
@pytest.mark.parametrize("name", ["pipedream", "pipedream-2bw"])
def test_asynchronous_schedules_have_no_bubble(pipeline, name, p, extra, F, B, W):
    """Narayanan 2019, section 3.2; Narayanan 2021 (2BW), section 3.1."""
    m = p + extra
    step = pipeline(name, p, m, 1, (F, B, W), overlap_p2p=True)
    assert step.seconds == pytest.approx(m * (F + B + W), rel=1e-9)
    for spent in step.breakdowns:
        assert sum(spent.values()) == pytest.approx(step.seconds, rel=1e-9)


@shared
@given(p=st.integers(2, 4), rounds=st.integers(1, 3), message=st.floats(0.0, 5.0))
@pytest.mark.parametrize("name", ["pipedream", "pipedream-2bw"])
def test_slow_messages_slow_the_round_trip_down_as_in_the_longest_path(pipeline, name, p, rounds, message):
    m = rounds * p
    oracle = assess(SCHEDULES[name], p, m, 1, Times(F=1.0, B=1.5, W=0.5, p2p=message))
    step = pipeline(name, p, m, 1, (1.0, 1.5, 0.5), message_s=message, overlap_p2p=True)
    assert step.seconds == pytest.approx(oracle.step_time, rel=1e-9)


@shared
@given(p=st.integers(2, 5), extra=st.integers(0, 5), F=seconds, B=seconds, W=seconds)
@pytest.mark.parametrize(("name", "v"), [("1f1b", 1), ("zb-h1", 1), ("zb-h2", 1), ("zb-v", 2)])
def test_post_validated_steps_take_at_most_the_step_and_at_least_the_longest_own_span(
    pipeline, name, v, p, extra, F, B, W
):
    m = 2 * p + extra
    timeline = evaluate(SCHEDULES[name].order(p, m, v), Times(F=F, B=B, W=W), v)
    step = pipeline(name, p, m, v, (F, B, W), overlap_p2p=True, post_validation=True)
    own_span = timeline.work + timeline.span_bubble
    assert own_span * (1 - 1e-9) <= step.seconds <= timeline.makespan * (1 + 1e-9)


@pytest.mark.parametrize(("name", "v"), [("zb-h2", 1), ("zb-v", 2)])
def test_zero_bubble_schedules_have_none_when_their_steps_interlock(pipeline, name, v):
    """Qi 2024, section 4: for F = B = W."""
    p, m = 4, 12
    step = pipeline(name, p, m, v, (1.0, 1.0, 1.0), overlap_p2p=True, post_validation=True)
    assert step.seconds == pytest.approx(3.0 * m, rel=1e-9)
    assert pipeline(name, p, m, v, (1.0, 1.0, 1.0), overlap_p2p=True).seconds > 3.0 * m


@shared
@given(p=st.integers(1, 5), extra=st.integers(0, 6), v=st.integers(1, 3), F=seconds)
def test_forward_only_fills_the_pipeline_once(pipeline, p, extra, v, F):
    m = p + extra
    step = pipeline("forward-only", p, m, v, (F, 1.0, 1.0), overlap_p2p=True)
    assert step.seconds == pytest.approx((m + (p - 1) / v) * F, rel=1e-9)
