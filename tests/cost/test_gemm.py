"""Dense, batched and grouped GEMMs: one formula in two forms, and physics for every legal shape."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost.gemm import ALIGNED, GemmCoefficients, Products, gemm_seconds, gemm_times
from simulator.cost.grouped_gemm import group_shape
from simulator.cost.profile import Fitted
from simulator.cost.profile_file import load_kernel_profile
from simulator.cost.rates import Rates

RATES = Rates(peak=989.4e12, memory_bandwidth=3.352e12, sm_count=132)
DEVICES = ("a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb", "b200", "b300", "gb200", "gb300")
FITTED = [
    pytest.param(fit, id=f"{device}-{dtype}")
    for device in DEVICES
    for classes in (load_kernel_profile(device).gemm, load_kernel_profile(device).grouped_gemm)
    for dtype, fit in classes.items()
]

sizes = st.integers(min_value=1, max_value=70_000)
batches = st.integers(min_value=1, max_value=512)
fractions = st.floats(min_value=0.1, max_value=1.0)


@st.composite
def coefficients(draw: st.DrawFn) -> GemmCoefficients:
    return GemmCoefficients(
        efficiency=draw(fractions),
        half_tile=draw(fractions),
        quarter_tile=draw(fractions),
        eighth_tile=draw(fractions),
        prologue_k=draw(st.floats(0.0, 2000.0)),
        wave=draw(st.floats(0.0, 1.0)),
        bandwidth=draw(fractions),
        ramp_s=draw(st.floats(0.0, 1e-5)),
        overlap=draw(st.floats(1.0, 8.0)),
        split_traffic=draw(st.floats(0.0, 8.0)),
        split_s=draw(st.floats(0.0, 2e-5)),
        throttle=draw(st.floats(0.0, 0.5)),
        throttle_s=draw(st.floats(1e-4, 1e-1)),
        unaligned=draw(st.sampled_from((1.0, 0.5))),
        fixed_s=draw(st.floats(0.0, 1e-5)),
    )


def one(c: GemmCoefficients, m: float, n: float, k: float, batch: float = 1.0, element: float = 2.0) -> float:
    traffic = batch * (element * k * (m + n) + 2.0 * m * n)
    return gemm_seconds(m=m, n=n, k=k, batch=batch, traffic=traffic, rates=RATES, c=c)


@given(c=coefficients(), m=sizes, n=sizes, k=sizes, batch=batches)
@settings(deadline=None)
def test_scalar_and_vector_forms_agree(c: GemmCoefficients, m: int, n: int, k: int, batch: int) -> None:
    vector = gemm_times(Products.of(m=[m], n=n, k=k, batch=batch), RATES, c)
    assert vector[0] == pytest.approx(one(c, m, n, k, batch), rel=1e-12)


@given(c=coefficients(), m=sizes, n=sizes, k=sizes, batch=batches)
@settings(deadline=None)
def test_never_above_peak_or_bandwidth(c: GemmCoefficients, m: int, n: int, k: int, batch: int) -> None:
    seconds = one(c, m, n, k, batch)
    assert np.isfinite(seconds)
    assert seconds >= 2.0 * batch * m * n * k / RATES.peak
    assert seconds >= batch * 2.0 * (k * (m + n) + m * n) / RATES.memory_bandwidth


@pytest.mark.parametrize("fit", FITTED)
@given(m=sizes, n=sizes, k=sizes, axis=st.integers(0, 2), more=st.floats(1.0, 3.0))
@settings(max_examples=30, deadline=None)
def test_fitted_times_grow_with_every_dimension_within_two_standard_errors(
    fit: Fitted[GemmCoefficients], m: int, n: int, k: int, axis: int, more: float
) -> None:
    """Where narrow loads cost something, from one aligned k to the next.

    Times fall where a larger product is split in another way: by 1.8 errors in the worst of 20 million pairs.
    """
    step = ALIGNED if fit.coefficients.unaligned < 1.0 else 1
    sizes = [m, n, step * math.ceil(k / step)]
    larger = list(sizes)
    larger[axis] = math.ceil(larger[axis] * more)
    larger[2] = step * math.ceil(larger[2] / step)
    assert one(fit.coefficients, *larger) >= one(fit.coefficients, *sizes) * (1.0 - 2.0 * fit.random)


def test_narrow_loads_slow_the_main_loop_only_where_k_is_not_aligned() -> None:
    c = GemmCoefficients(efficiency=0.5, bandwidth=1.0, fixed_s=0.0, split_traffic=1e6, unaligned=0.5)
    aligned, not_aligned = one(c, 8192, 8192, 4096), one(c, 8192, 8192, 4088)
    assert aligned == one(replace(c, unaligned=1.0), 8192, 8192, 4096)
    assert not_aligned / aligned == pytest.approx(2.0 * 4088 / 4096, rel=1e-3)


def test_a_started_wave_costs_a_whole_one_when_quantised() -> None:
    c = GemmCoefficients(
        efficiency=1.0,
        wave=1.0,
        bandwidth=1.0,
        fixed_s=0.0,
        half_tile=0.1,
        quarter_tile=0.1,
        eighth_tile=0.1,
        split_traffic=1e6,
    )
    k = 65536  # long enough that memory traffic does not show
    full, more = one(c, 256 * 12, 128 * 11, k), one(c, 256 * 12, 128 * 11 + 1, k)
    assert more == pytest.approx(2 * full, rel=1e-3)


def test_roofline_without_tiles_by_hand() -> None:
    c = GemmCoefficients(efficiency=0.5, bandwidth=0.5, fixed_s=1e-6, tiled=False)
    assert one(c, 8192, 8192, 8192) == pytest.approx(2 * 8192**3 / (0.5 * RATES.peak) + 1e-6)
    assert one(c, 1, 8192, 8192) == pytest.approx(2 * (8192 + 8192**2 + 8192) / (0.5 * 3.352e12) + 1e-6)


def test_splitting_k_helps_a_product_of_few_tiles() -> None:
    free = GemmCoefficients(efficiency=0.8, bandwidth=0.9, fixed_s=0.0, split_s=0.0, split_traffic=0.1)
    dear = GemmCoefficients(efficiency=0.8, bandwidth=0.9, fixed_s=0.0, split_s=1.0)
    assert one(free, 128, 128, 65536) < 0.3 * one(dear, 128, 128, 65536)


def test_grouped_shape_of_a_weight_gradient_sums_over_the_rows() -> None:
    forward = group_shape(groups=8, rows=4096, n=3072, k=1024, role="forward")
    wgrad = group_shape(groups=8, rows=4096, n=3072, k=1024, role="wgrad")
    assert forward == (512, 3072, 1024, 8)
    assert wgrad == (3072, 1024, 512, 8)


def test_groups_without_rows_cost_nothing() -> None:
    assert group_shape(groups=64, rows=4, n=8, k=8, role="forward") == (1, 8, 8, 4)


def test_many_shapes_at_once_cost_what_each_costs_alone() -> None:
    c = load_kernel_profile("h100-sxm5-80gb").gemm["bf16"].coefficients
    sizes = np.round(np.exp(np.random.default_rng(0).uniform(0, np.log(65536), (3, 20))))
    together = gemm_times(Products.of(m=sizes[0], n=sizes[1], k=sizes[2]), RATES, c)
    alone = [gemm_times(Products.of(m=[m], n=n, k=k), RATES, c)[0] for m, n, k in sizes.T]
    assert together == pytest.approx(alone, rel=1e-12)
