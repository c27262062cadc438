"""Fits recover coefficients they were not told, hold whole shapes back, and refuse too little data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.compose import Streams, attention_cores, gemm_row_times, stream_times
from calibration.fit.classes import GEMM_START, TooFewError, fit_attention, fit_gemm, fit_stream
from calibration.fit.site import fit_site_gemm, training_gemm_times
from calibration.fit.split import errors, held_out, random_error
from calibration.readers import Table
from simulator.cost.attention import AttentionCoefficients, attention_times
from simulator.cost.memory_bound import MemoryCoefficients
from simulator.cost.rates import Rates

RATES = Rates(peak=989.4e12, memory_bandwidth=3.352e12, sm_count=132)
STREAMS = Streams(
    kinds={
        "quantize": MemoryCoefficients(bandwidth=0.9, fixed_s=1e-6),
        "amax": MemoryCoefficients(bandwidth=0.5, fixed_s=5e-6),
    },
    memory_bandwidth=RATES.memory_bandwidth,
    l2_bytes=50e6,
)
STEPS = (512, 1024, 1536, 2048, 4096, 7168, 8192, 16384)


def made(kind: str, columns: dict[str, object]) -> Table:
    arrays = {name: np.asarray(column) for name, column in columns.items()}
    rows = len(next(iter(arrays.values())))
    arrays.setdefault("time_us", np.ones(rows))
    arrays.setdefault("source", np.full(rows, "made"))
    return Table(kind=kind, path="made.csv", columns=arrays, lines=np.arange(rows) + 2)


def timed(table: Table, seconds: np.ndarray, noise: float, seed: int = 0) -> Table:
    jitter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(table)))
    return replace(table, columns={**table.columns, "time_us": seconds * jitter * 1e6})


def gemm_table(dtype: str = "bf16") -> Table:
    grid = [(m, n, k) for m in (16, 128, 513, *STEPS) for n in STEPS for k in STEPS]
    m, n, k = np.array(grid, dtype=float).T
    return made("gemm", {"dtype": [dtype] * len(grid), "m": m, "n": n, "k": k, "kernel": [""] * len(grid)})


@settings(max_examples=4, deadline=None)
@given(efficiency=st.floats(0.5, 0.95), bandwidth=st.floats(0.6, 0.95), fixed_us=st.floats(1.5, 5.0))
def test_gemm_coefficients_come_back_from_noisy_times(
    efficiency: float, bandwidth: float, fixed_us: float
) -> None:
    truth = replace(GEMM_START, efficiency=efficiency, bandwidth=bandwidth, fixed_s=fixed_us * 1e-6)
    table = gemm_table()
    noisy = timed(table, gemm_row_times(table, "bf16", RATES, truth, STREAMS), 0.03)
    fit, _ = fit_gemm(noisy, "bf16", RATES, STREAMS, site=0.1)
    found = fit.coefficients
    # efficiency and throttling trade places for long kernels, so rates are compared, not names
    assert found.efficiency == pytest.approx(efficiency, rel=0.04)
    assert found.bandwidth == pytest.approx(bandwidth, rel=0.06)
    assert found.fixed_s == pytest.approx(fixed_us * 1e-6, rel=0.15)
    assert fit.held_out is not None
    assert fit.held_out.median < 0.03
    assert fit.random == pytest.approx(0.03, rel=0.25)


def test_outliers_do_not_pull_the_fit() -> None:
    table = gemm_table()
    truth = replace(GEMM_START, efficiency=0.7)
    noisy = timed(table, gemm_row_times(table, "bf16", RATES, truth, STREAMS), 0.02)
    spoiled = noisy["time_us"].copy()
    spoiled[::20] *= 4.0
    fit, _ = fit_gemm(
        replace(noisy, columns={**noisy.columns, "time_us": spoiled}), "bf16", RATES, STREAMS, site=0.1
    )
    assert fit.coefficients.efficiency == pytest.approx(0.7, rel=0.04)


def test_quantising_is_taken_out_of_low_precision_rows() -> None:
    table = gemm_table("fp8")
    truth = replace(GEMM_START, efficiency=0.75)
    fit, _ = fit_gemm(
        timed(table, gemm_row_times(table, "fp8", RATES, truth, STREAMS), 0.02), "fp8", RATES, STREAMS, 0.1
    )
    assert fit.coefficients.efficiency == pytest.approx(0.75, rel=0.04)


def test_attention_coefficients_come_back() -> None:
    grid = [
        (b, s, h, d)
        for b in (1, 4)
        for s in (1024, 2048, 4096, 8192, 16384)
        for h in (4, 8, 12, 16, 24, 32, 64)
        for d in (64, 128, 256)
    ]
    b, s, h, d = np.array(grid, dtype=float).T
    table = made(
        "attention",
        {
            "dtype": ["bf16"] * len(grid),
            "kv_dtype": ["bf16"] * len(grid),
            "batch": b,
            "seq": s,
            "heads": h,
            "kv_heads": h / 4,
            "head_dim": d,
            "causal": np.ones(len(grid)),
            "window": np.zeros(len(grid)),
            "direction": ["fwd"] * len(grid),
        },
    )
    truth = AttentionCoefficients(
        efficiency=0.85,
        half_dim=50.0,
        prologue_keys=60.0,
        tail=0.5,
        lone=0.5,
        bandwidth=0.8,
        kv_bandwidth=0.5,
        fixed_s=1e-5,
    )
    noisy = timed(table, attention_times(attention_cores(table), RATES, truth), 0.02)
    found = fit_attention(noisy, RATES, site=0.1)
    again = attention_times(attention_cores(table), RATES, found.coefficients)
    assert errors(again, attention_times(attention_cores(table), RATES, truth)).median < 0.015


@settings(max_examples=10, deadline=None)
@given(bandwidth=st.floats(0.3, 0.95), fixed_us=st.floats(1.0, 10.0))
def test_stream_coefficients_come_back(bandwidth: float, fixed_us: float) -> None:
    truth = MemoryCoefficients(bandwidth=bandwidth, fixed_s=fixed_us * 1e-6)
    traffic = np.geomspace(1e4, 1e10, 120)
    table = made(
        "memory_bound",
        {
            "kind": ["norm"] * 120,
            "read_bytes": traffic / 2,
            "write_bytes": traffic / 2,
            "kernels": np.ones(120),
        },
    )
    noisy = timed(table, stream_times(traffic, 1.0, RATES.memory_bandwidth, truth), 0.03)
    found = fit_stream(noisy, traffic, np.ones(120), RATES, site=0.1).coefficients
    assert found.bandwidth == pytest.approx(bandwidth, rel=0.05)
    assert found.fixed_s == pytest.approx(fixed_us * 1e-6, rel=0.05)


def test_a_site_moves_the_efficiency_and_finds_the_cost_of_accumulating() -> None:
    shapes = [(m, n, k) for m in (2048, 4096, 8192) for n in (1024, 4096, 8192) for k in (1024, 4096, 8192)]
    m, n, k = np.array(shapes * 2, dtype=float).T
    rows = len(m)
    table = made(
        "gemm_training",
        {
            "gpu": ["mine"] * rows,
            "dtype": ["bf16"] * rows,
            "b": np.ones(rows),
            "m": m,
            "n": n,
            "k": k,
            "layout": ["TN"] * rows,
            "accumulate": ["False"] * (rows // 2) + ["True"] * (rows // 2),
            "out_dtype": ["bf16"] * (rows // 2) + ["fp32"] * (rows // 2),
        },
    )
    truth = replace(GEMM_START, efficiency=0.55, accumulate=0.06)
    noisy = timed(table, training_gemm_times(table, RATES, truth), 0.01)
    found = fit_site_gemm(noisy, RATES, GEMM_START)
    assert found.coefficients.efficiency == pytest.approx(0.55, rel=0.03)
    assert found.coefficients.accumulate == pytest.approx(0.06, abs=0.01)
    assert found.coefficients.bandwidth == GEMM_START.bandwidth


def test_too_few_rows_are_refused_with_the_class() -> None:
    with pytest.raises(TooFewError, match=r"50 gemm rows(.|\n)*at least 200"):
        fit_gemm(gemm_table().where(np.arange(len(gemm_table())) < 50), "bf16", RATES, STREAMS, site=0.1)


def test_whole_shapes_are_held_back_the_same_ones_for_every_precision() -> None:
    table, other = gemm_table(), gemm_table("fp8")
    back = held_out(table)
    assert 0.1 < back.mean() < 0.3
    assert np.array_equal(back, held_out(other))
    held = set(zip(table["n"][back], table["k"][back], strict=True))
    assert not held & set(zip(table["n"][~back], table["k"][~back], strict=True))


def test_random_error_ignores_the_bias_and_outliers() -> None:
    noise = np.random.default_rng(1).standard_normal(4000)
    predicted = 1.2 * np.exp(0.05 * noise)
    predicted[:40] *= 10.0
    assert random_error(predicted, np.ones(4000)) == pytest.approx(0.05, rel=0.08)
