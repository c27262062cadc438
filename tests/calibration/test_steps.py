"""Training steps on one GPU: rows that validation reads, kept as they come."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from calibration.measure.steps import Slice, measure_steps, slices
from simulator.simulate import simulate
from simulator.validation.predict import express
from simulator.validation.published import Measured
from simulator.validation.rows import read_rows


def half_a_second(_: Slice) -> Measured:
    return Measured(step_time_s=0.5, step_time_basis="reported")


def test_rows_are_runs_of_one_gpu_that_simulate(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    pieces = list(slices())
    assert measure_steps(pieces, half_a_second, path, "h200", "own") == len(pieces)
    expressed, refused = express(read_rows(path))
    assert refused == []
    assert {item.run.gpus for item in expressed} == {1}
    recomputed = {item.row.run_id: simulate(item.run) for item in expressed if "seq8192" in item.row.run_id}
    plain = recomputed["own-h200-llama-slice-seq8192-mbs1-eager"]
    again = recomputed["own-h200-llama-slice-seq8192-mbs1-full-eager"]
    assert again.step_time_s > plain.step_time_s
    assert again.memory["peak_bytes"] < plain.memory["peak_bytes"]


def test_what_is_on_file_is_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    first, *others = slices(tiny=True)
    assert measure_steps([first], half_a_second, path, "h200", "own") == 1
    assert measure_steps([first, *others], half_a_second, path, "h200", "own") == len(others)
    assert measure_steps([first], half_a_second, path, "h200", "another") == 1


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_runs_every_tiny_slice(tmp_path: Path) -> None:
    from calibration.measure.torch_steps import time_step

    pieces = list(slices(tiny=True))
    assert {piece.architecture.model for piece in pieces} == {"llama-slice", "gpt-slice", "moe-slice"}
    path = tmp_path / "steps.csv"
    measure_steps(pieces, lambda piece: time_step(piece, "cpu"), path, "h200", "own")
    assert all(row.measured.step_time_s for row in read_rows(path))
