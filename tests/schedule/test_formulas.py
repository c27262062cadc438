"""With free communication, bubbles and activation counts equal the papers' formulas.

F, B (input gradient), W: a device's whole share of one microbatch.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.schedule.assessment import Assessment, assess
from simulator.schedule.evaluate import Times
from simulator.schedule.interleaved_1f1b import group_size
from simulator.schedule.registry import SCHEDULES

devices = st.integers(1, 8)
chunks = st.integers(1, 4)
time = st.floats(0.1, 10.0)


def run(
    name: str, p: int, m: int, v: int, F: float, B: float, W: float, pair: float | None = None
) -> Assessment:
    return assess(SCHEDULES[name], p, m, v, Times(F=F, B=B, W=W, pair=pair))


def same(value: float, formula: float, scale: float) -> bool:
    """Equal to 1e-9 of the step."""
    return value == pytest.approx(formula, rel=1e-9, abs=1e-9 * scale)


@given(p=devices, m=st.integers(1, 24), F=time, B=time, W=time)
def test_gpipe_and_1f1b(p: int, m: int, F: float, B: float, W: float) -> None:
    gpipe, one_f_one_b = run("gpipe", p, m, 1, F, B, W), run("1f1b", p, m, 1, F, B, W)
    for found in (gpipe, one_f_one_b):
        assert same(found.bubble, (p - 1) * (F + B + W), found.step_time)
    assert gpipe.peak_activations == [m] * p
    assert one_f_one_b.peak_activations == [min(p - i, m) for i in range(p)]


@given(p=devices, extra=st.integers(0, 12), v=chunks, F=time, B=time, W=time)
def test_looped_bfs(p: int, extra: int, v: int, F: float, B: float, W: float) -> None:
    m = p + extra
    found = run("looped-bfs", p, m, v, F, B, W)
    assert same(found.bubble, (p - 1) * (F + B + W) / v, found.step_time)
    assert found.peak_activations == [m * v] * p


@given(p=devices, extra=st.integers(0, 20), v=chunks, F=time, B=time, W=time)
def test_interleaved_1f1b(p: int, extra: int, v: int, F: float, B: float, W: float) -> None:
    m = p + extra
    g = group_size(p, m)
    found = run("interleaved-1f1b", p, m, v, F, B, W)
    assert same(found.bubble, (p - 1) * (F + B + W) / v, found.step_time)
    assert found.peak_activations == [min(2 * (p - i - 1) + (v - 1) * g + 1, m * v) for i in range(p)]


@given(p=devices, extra=st.integers(0, 20), v=chunks, F=time, B=time, share=st.floats(0.05, 1.0))
def test_interleaved_zero_bubble(p: int, extra: int, v: int, F: float, B: float, share: float) -> None:
    m, W = p + extra, min(F, B) * share
    g = group_size(p, m)
    found = run("interleaved-zb", p, m, v, F, B, W)
    assert same(found.bubble, (p - 1) * (F + B - W) / v, found.step_time)
    peak = min((v - 1) * g + p, m * v)
    assert found.peak_activations == [peak] * p


@given(p=devices, m=st.integers(1, 24), F=time, B=time, W=time)
def test_zb_h1(p: int, m: int, F: float, B: float, W: float) -> None:
    found = run("zb-h1", p, m, 1, F, B, W)
    if m >= p:
        assert same(found.bubble, (p - 1) * max(F, B, F + B - W), found.step_time)
    assert found.peak_activations == [min(p, m)] * p


@given(p=devices, extra=st.integers(0, 12), F=time, B=time, W=time)
def test_zb_h2(p: int, extra: int, F: float, B: float, W: float) -> None:
    m = 2 * p - 1 + extra
    found = run("zb-h2", p, m, 1, F, B, W)
    assert same(found.bubble, (p - 1) * max(F, B - F, F + B - 2 * W), found.step_time)
    assert same(found.timeline.span_bubble, (p - 1) * max(0, B - F, F + B - 2 * W), found.step_time)
    assert found.peak_activations == [2 * p - 1] * p


@given(p=devices, extra=st.integers(0, 12), W=time, more_F=st.floats(0, 3), more_B=st.floats(0, 3))
def test_zb_v(p: int, extra: int, W: float, more_F: float, more_B: float) -> None:
    m, F, B = 2 * p - 1 + extra, W + more_F, W + more_F + more_B
    found = run("zb-v", p, m, 2, F, B, W)
    assert same(found.timeline.span_bubble, (p - 1) * (B - W), found.step_time)
    assert same(found.bubble, (p - 1) * max(B / 2, B - W), found.step_time)
    assert max(found.peak_activations) <= 2 * p


@given(p=st.integers(3, 16), extra=st.integers(0, 20), F=time)
def test_v_min(p: int, extra: int, F: float) -> None:
    m = 2 * p + extra
    found = run("v-min", p, m, 2, F, F, F)
    assert same(found.bubble, (2 * p - (1.5 if p % 3 == 0 else 2.5)) * F, found.step_time)
    assert max(found.peak_activations) <= 2 * (p / 3 + 1.5)


@given(half=st.integers(1, 4), extra=st.integers(0, 6), F=time, share=st.floats(0.05, 1.0))
def test_dualpipe(half: int, extra: int, F: float, share: float) -> None:
    p, B, W = 2 * half, F, F * share
    m = 2 * p + 2 * extra
    found = run("dualpipe", p, m, 1, F, B, W)
    pair = F + B + W
    assert same(found.bubble, (half - 1) * (pair + (B + W) - 3 * W), found.step_time)
    assert found.peak_activations == [p + 1] * p


@given(p=devices, extra=st.integers(0, 12), F=time, share=st.floats(0.05, 1.0))
def test_dualpipev(p: int, extra: int, F: float, share: float) -> None:
    m, B, W = 2 * p + extra, F, F * share
    found = run("dualpipev", p, m, 2, F, B, W)
    pair = F + B + W
    assert same(found.bubble, (p - 1) * (pair + (B + W) - 3 * W) / 2, found.step_time)
    assert found.peak_activations == [2 * p + 1] * p


@given(p=devices, m=st.integers(1, 24), F=time, B=time, W=time)
def test_asynchronous_schedules_have_no_bubble_in_steady_state(
    p: int, m: int, F: float, B: float, W: float
) -> None:
    found = run("pipedream", p, m, 1, F, B, W)
    assert same(found.step_time, m * (F + B + W), found.step_time)
    assert found.weight_versions == [p - i for i in range(p)]
    assert max(run("pipedream-2bw", p, m + p, 1, F, B, W).weight_versions) == min(2, p)


@given(p=devices, extra=st.integers(0, 20), v=chunks, F=time)
def test_forward_only(p: int, extra: int, v: int, F: float) -> None:
    found = run("forward-only", p, p + extra, v, F, 1.0, 1.0)
    assert same(found.bubble, (p - 1) * F / v, found.step_time)
