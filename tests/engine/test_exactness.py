"""With free communication the engine's step times equal the closed forms of the schedules' papers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

seconds = st.floats(0.01, 10.0)
shared = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@shared
@given(p=st.integers(1, 8), m=st.integers(1, 16), F=seconds, B=seconds, W=seconds)
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize("overlap", [False, True])
def test_gpipe_and_1f1b_take_m_plus_p_minus_1_microbatches(pipeline, name, overlap, p, m, F, B, W):
    """Bubble (p−1)(F+B+W): Narayanan 2021, section 2.2."""
    step = pipeline(name, p, m, 1, (F, B, W), overlap_p2p=overlap)
    assert step.seconds == pytest.approx((m + p - 1) * (F + B + W), rel=1e-9)


@shared
@given(p=st.integers(2, 6), rounds=st.integers(1, 4), v=st.integers(2, 5), F=seconds, B=seconds, W=seconds)
@pytest.mark.parametrize("overlap", [False, True])
def test_interleaving_divides_the_bubble_by_the_number_of_chunks(pipeline, overlap, p, rounds, v, F, B, W):
    """Bubble (p−1)(F+B+W)/v: Narayanan 2021, section 2.2."""
    m = rounds * p
    step = pipeline("interleaved-1f1b", p, m, v, (F, B, W), overlap_p2p=overlap)
    assert step.seconds == pytest.approx((m + (p - 1) / v) * (F + B + W), rel=1e-9)


@shared
@given(p=st.integers(2, 6), m=st.integers(1, 12), F=seconds, B=seconds, W=seconds)
def test_every_instant_is_attributed_once(pipeline, p, m, F, B, W):
    step = pipeline("1f1b", p, m, 1, (F, B, W), message_s=0.3)
    for spent in step.breakdowns:
        assert sum(spent.values()) == pytest.approx(step.seconds, rel=1e-9)
        assert spent["work"] == pytest.approx(m * (F + B + W), rel=1e-9)
