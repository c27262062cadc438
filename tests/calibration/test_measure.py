"""Measuring: plans whose prefixes are useful, tables that resume, a fit that undoes what was simulated."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import pytest

from calibration.fit.site_profile import fit_site_profile
from calibration.measure.plan import PARTS, TINY, plan
from calibration.measure.session import MACHINE_FILE, measure
from calibration.measure.simulated import SimulatedBackend
from calibration.readers import read_table
from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import load_kernel_profile
from simulator.spec.load import load_device

H100 = Kernels(load_device("h100"), load_kernel_profile("h100-sxm5-80gb"))


def test_every_prefix_of_a_plan_covers_all_parts() -> None:
    cases = list(plan())
    assert {case.part for case in cases[: len(PARTS)]} == set(PARTS)
    assert {case.part for case in plan(parts=["copy"])} == {"copy"}
    assert len({case.columns for case in cases if not case.sustained_s}) > 0.95 * len(cases) - 20


def test_tables_are_those_the_readers_know(tmp_path: Path) -> None:
    outcome = measure(plan(scale=TINY), SimulatedBackend(H100), tmp_path, source="mine")
    assert outcome.measured > 20
    assert sum(outcome.refused.values()) == 2  # copies: the model has no host
    for path in tmp_path.glob("*.csv"):
        assert read_table(path).kind == path.stem
    assert json.loads((tmp_path / MACHINE_FILE).read_text())["profile"] == "h100-sxm5-80gb"


def test_a_run_that_was_cut_off_resumes(tmp_path: Path) -> None:
    cases, backend = plan(scale=TINY), SimulatedBackend(H100)
    ticks = itertools.count()
    first = measure(cases, backend, tmp_path, source="mine", budget_s=10, clock=lambda: float(next(ticks)))
    assert first.measured == 9
    assert first.left > 0
    path = tmp_path / "gemm_training.csv"
    path.write_text(path.read_text()[:-7])  # the last row was being written
    second = measure(cases, backend, tmp_path, source="mine")
    assert second.resumed == 8
    assert second.left == 0
    assert measure(cases, backend, tmp_path, source="mine").measured == 0
    rows = read_table(path)
    assert len(rows) == sum(case.kind == "gemm_training" for case in cases)


def test_another_source_is_measured_again(tmp_path: Path) -> None:
    cases, backend = plan(scale=TINY, parts=["gemm"]), SimulatedBackend(H100)
    measure(cases, backend, tmp_path, source="one")
    assert measure(cases, backend, tmp_path, source="two").resumed == 0


def test_fitting_a_measurement_finds_the_machines_slowdown(tmp_path: Path) -> None:
    backend = SimulatedBackend(H100, slowdown=1.25, noise=0.01)
    measure(plan(parts=["gemm", "memory_bound"]), backend, tmp_path, source="mine")
    tables = [read_table(path) for path in sorted(tmp_path.glob("*.csv"))]
    found = fit_site_profile("mine", H100, tables)
    share = (
        found.document["gemm"]["bf16"]["coefficients"]["efficiency"]
        / H100.gemm_fit("bf16").coefficients.efficiency
    )
    assert share == pytest.approx(1 / 1.25, rel=0.05)
    assert found.document["gemm"]["bf16"]["held_out"]["median"] < 0.03


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_times_the_same_plan_on_the_cpu(tmp_path: Path) -> None:
    from calibration.measure.torch_backend import TorchBackend

    outcome = measure(plan(scale=TINY), TorchBackend("cpu"), tmp_path, source="cpu")
    assert outcome.measured > 15
    assert (read_table(tmp_path / "gemm_training.csv").seconds > 0).all()
