"""Others' measurements: profiler traces, nccl-tests logs and tables become tables the readers know."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calibration.importing import import_file
from calibration.readers import read_table
from simulator.cli.calibrate import app
from simulator.spec.errors import SpecError

runner = CliRunner()
LOG = """# nThread 1 nGpus 8 minBytes 8 maxBytes 134217728
# Using devices
#  Rank  0 Group  0 Pid   1 on    host0 device  0 [0x1b] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid   1 on    host0 device  1 [0x43] NVIDIA H100 80GB HBM3
#     size     count   type redop root   time algbw busbw #wrong   time algbw busbw #wrong
  67108864  16777216  float   sum   -1  350.0 191.7 191.7      0  351.0 191.2 191.2      0
"""


def trace(path: Path, *, shapes: bool = True) -> Path:
    arguments = {
        "External id": 7,
        "Input Dims": [[4096, 1024], [1024, 512]],
        "Input type": ["c10::BFloat16"] * 2,
    }
    events = [
        {"cat": "cpu_op", "name": "aten::mm", "args": arguments if shapes else {"External id": 7}},
        {"cat": "kernel", "name": "nvjet_tst", "dur": 12.5, "args": {"External id": 7}},
        {"cat": "kernel", "name": "splitKreduce", "dur": 2.5, "args": {"External id": 7}},
        {"cat": "kernel", "name": "other", "dur": 99.0, "args": {"External id": 8}},
    ]
    text = json.dumps({"traceEvents": events}).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_a_trace_gives_its_products_with_all_their_kernels(tmp_path: Path, name: str) -> None:
    imported = import_file(trace(tmp_path / name), tmp_path / "out.csv", gpu="h100", source="mine")
    table = read_table(imported.path)
    assert table.kind == "gemm_training"
    assert [table[c][0] for c in ("m", "n", "k", "b", "time_us")] == [4096, 512, 1024, 1, 15.0]
    assert table["dtype"][0] == "bf16"


def test_a_trace_without_shapes_says_how_to_record_them(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="record_shapes"):
        import_file(trace(tmp_path / "t.json", shapes=False), tmp_path / "out.csv")


def test_a_cut_off_trace_is_refused(tmp_path: Path) -> None:
    path = trace(tmp_path / "t.json")
    path.write_text(path.read_text()[:-30])
    with pytest.raises(SpecError, match="not JSON"):
        import_file(path, tmp_path / "out.csv")


def test_an_nccl_tests_log_becomes_a_table(tmp_path: Path) -> None:
    path = tmp_path / "all_reduce_perf.log"
    path.write_text(LOG)
    written = runner.invoke(app, ["import", str(path), "-o", str(tmp_path / "collectives_h100.csv")])
    assert written.exit_code == 0, written.output
    table = read_table(tmp_path / "collectives_h100.csv")
    assert table.kind == "collective"
    assert table.seconds == pytest.approx([350e-6])


def test_garbage_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "all_reduce_perf.log"
    path.write_text(LOG.replace("350.0", "fast"))
    with pytest.raises(SpecError, match="6"):
        import_file(path, tmp_path / "out.csv")


def test_a_rehearsal_measures_fits_and_checks(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    arguments = ["measure", "-o", str(folder), "--simulate", "h100", "--part", "gemm", "--budget", "1 min"]
    measured = runner.invoke(app, arguments)
    assert measured.exit_code == 0, measured.output
    profile = tmp_path / "own.yaml"
    fitted = runner.invoke(app, ["fit", str(folder), "--hardware", "h100", "-o", str(profile)])
    assert fitted.exit_code == 0, fitted.output
    checked = runner.invoke(
        app, ["check", "--hardware", "h100", "--profile", str(profile), "--data", str(folder), "--json", "-"]
    )
    assert json.loads(checked.stdout)["overall"]["median_abs_error"] < 0.01


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    result = runner.invoke(app, ["measure", "-o", str(tmp_path), "--simulate", "h100", "--part", "gem"])
    assert isinstance(result.exception, SpecError)
    assert "grouped_gemm" in str(result.exception)
