"""Factors from training steps: where they apply, and where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cost.catalog import kernels_for
from simulator.cost.profile_file import kernel_profile_names
from simulator.cost.sustained import (
    Sustained,
    carried_over,
    clock_kept,
    precision_class,
    sustained_rate,
)
from simulator.graph.operators import Attention, Gemm, MemoryBound
from simulator.simulate import simulate
from simulator.spec.errors import SpecError
from simulator.spec.load import load_cluster, load_device, load_run

PRODUCT = Gemm(name="product", m=8192, n=8192, k=8192)
NORM = MemoryBound(name="norm", kind="norm", read_bytes=1e9, write_bytes=1e9)


def test_matrix_kernels_slow_down_by_the_factor_and_memory_bound_ones_do_not() -> None:
    cluster = load_cluster("dgx-h100-ndr")
    benchmarked, sustained = kernels_for(cluster), kernels_for(cluster, precision="bf16")
    known = sustained_rate("h100-sxm5-80gb", "bf16")
    assert known is not None
    assert 0.5 < known.factor < 1.0
    ratio = benchmarked.estimate(PRODUCT).seconds / sustained.estimate(PRODUCT).seconds
    assert ratio == pytest.approx(known.factor, rel=0.05)
    assert sustained.estimate(NORM) == benchmarked.estimate(NORM)
    assert sustained.peak("bf16") == benchmarked.peak("bf16")  # MFU keeps the datasheet's denominator


def test_kernels_that_draw_less_power_keep_more_of_their_clock() -> None:
    assert clock_kept(0.8, 1.0) == 0.8  # a product at the best rate
    assert clock_kept(0.8, 0.729) == pytest.approx(0.8 / 0.9)  # power goes with the cube of the clock
    assert clock_kept(0.8, 0.3) == 1.0
    profile = load_cluster("dgx-h100-ndr")
    core = Attention(
        name="core", batch=1, seq_q=8192, seq_kv=8192, heads=32, kv_heads=32, qk_head_dim=128, v_head_dim=128
    )
    clock = {
        kind: kernels_for(profile, attention=kind, sustained=Sustained(0.8)).estimate(core).clock
        for kind in ("flash3", "triton")
    }
    assert 0.8 < clock["flash3"] < clock["triton"] == 1.0


@given(st.floats(0.3, 1.0), st.floats(1e-3, 1.0), st.floats(1e-3, 1.0))
def test_a_faster_kernel_stays_the_faster_one(factor: float, one: float, other: float) -> None:
    slow, fast = sorted((one, other))
    assert slow * clock_kept(factor, slow) <= fast * clock_kept(factor, fast) * (1 + 1e-12)
    assert factor <= clock_kept(factor, slow) <= 1.0


def test_a_factor_moves_to_another_device_of_its_kind_with_its_power() -> None:
    """A third of the limit is not dynamic power: near it, the clock goes with the limit's square root."""
    h100 = load_device("h100-sxm5-80gb")
    half = replace(h100, name="half", tdp_w=h100.tdp_w / 2)
    assert carried_over(0.8, h100, half) == pytest.approx(0.8 / 2**0.5)
    nearly = 0.999
    dynamic = (nearly - 1 / 3) / (1 - 1 / 3)
    less = replace(h100, name="less", tdp_w=nearly * h100.tdp_w)
    assert carried_over(0.8, h100, less) == pytest.approx(0.8 * dynamic ** (1 / 3), rel=1e-6)
    assert carried_over(0.8, h100, load_device("a100-sxm4-80gb")) == 0.8
    assert carried_over(0.8, h100, replace(half, tdp_w=0.0)) == 0.8
    assert carried_over(0.8, h100, h100) == 0.8


def test_factors_are_a_matter_of_device_and_width_alone() -> None:
    assert precision_class("bf16") == precision_class("fp16") == "16-bit"
    assert precision_class("mxfp8") == precision_class("fp8") == "8-bit"
    assert sustained_rate("h100-sxm5-80gb", "fp8") == sustained_rate("h100-sxm5-80gb", "mxfp8")


def test_a_site_that_was_measured_keeps_its_own_rates() -> None:
    assert sustained_rate("b200-simumax", "bf16") is None


def test_every_carried_over_device_has_the_factor_of_the_one_it_resembles() -> None:
    assert "h800-sxm5-80gb" in kernel_profile_names()
    known, base = sustained_rate("h800-sxm5-80gb", "bf16"), sustained_rate("h100-sxm5-80gb", "bf16")
    assert known is not None
    assert base is not None
    assert (known.factor, known.rows) == (base.factor, 0)


def test_a_run_can_ask_for_benchmarked_rates() -> None:
    run = load_run("llama3-8b-8-h100")
    benchmarked = replace(run, simulation=replace(run.simulation, sustained=False))
    assert simulate(benchmarked).step_time_s < simulate(run).step_time_s


def test_a_site_that_knows_its_factor_has_a_narrower_interval() -> None:
    shipped = simulate(load_run("llama3-8b-8-h100"))
    overrides = ["simulation.sustained=0.8", "simulation.sustained_error=0.01"]
    own = simulate(load_run("llama3-8b-8-h100", overrides))
    assert own.step_time_s < shipped.step_time_s * 1.1
    width = {
        name: (result.step_time_interval_s[1] - result.step_time_interval_s[0]) / result.step_time_s
        for name, result in (("shipped", shipped), ("own", own))
    }
    assert width["own"] < 0.9 * width["shipped"]


@pytest.mark.parametrize("wrong", ["sustained=-1", "sustained=often", "sustained_error=0.1"])
def test_a_factor_is_a_number_above_zero_and_only_it_has_an_error(wrong: str) -> None:
    with pytest.raises(SpecError):
        load_run("llama3-8b-8-h100", [f"simulation.{wrong}"])
