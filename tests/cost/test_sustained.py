"""Factors from training steps: where they apply, and where they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.cost.catalog import kernels_for
from simulator.cost.profile_file import kernel_profile_names
from simulator.cost.sustained import precision_class, sustained_rate
from simulator.graph.operators import Gemm, MemoryBound
from simulator.simulate import simulate
from simulator.spec.load import load_cluster, load_run

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
