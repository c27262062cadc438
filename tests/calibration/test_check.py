"""``calibrate check`` and ``fit``: figures per class, reasons for what is not predicted, stable JSON keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from calibration.check import check
from calibration.compose import gemm_row_times
from calibration.predict import streams_of
from calibration.readers import read_table
from simulator.cli.calibrate import app
from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import load_kernel_profile
from simulator.spec.errors import SpecError
from simulator.spec.load import load_device

H100 = Kernels(load_device("h100"), load_kernel_profile("h100-sxm5-80gb"))
GEMM = "dtype,m,n,k,time_us,kernel,source"
runner = CliRunner()


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """GEMMs that take 10 % longer than the H100 profile says, and some no device knows."""
    path = tmp_path / "gemm_mine.csv"
    lines = [f"bf16,{m},{n},4096,1,lib,mine" for m in (512, 1024, 4096) for n in (1024, 8192)]
    path.write_text("\n".join([GEMM, *lines]))
    table = read_table(path)
    fit = H100.gemm_fit("bf16")
    seconds = gemm_row_times(table, "bf16", H100.rates("bf16"), fit.coefficients, streams_of(H100))
    timed = [line.replace(",1,lib", f",{1.1e6 * t:.6f},lib") for line, t in zip(lines, seconds, strict=True)]
    path.write_text(
        "\n".join([GEMM, *timed, "int4_wo,512,512,512,5.0,lib,mine", "nvfp4,512,512,512,5.0,lib,mine"])
    )
    return path


def test_json_has_the_promised_keys_and_errors(slow: Path) -> None:
    result = runner.invoke(app, ["check", "--hardware", "h100", "--data", str(slow), "--json", "-"])
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    (gemm,) = outcome["classes"]
    assert gemm["class"] == "gemm"
    assert gemm["dtype"] == "bf16"
    assert gemm["n"] == 6
    for key in ("median_abs_error", "p90_abs_error"):
        assert gemm[key] == pytest.approx(1 - 1 / 1.1, rel=1e-3)
    assert gemm["bias"] == pytest.approx(1 / 1.1 - 1, rel=1e-3)
    assert outcome["overall"]["n"] == 6
    reasons = {skipped["reason"].split("\n")[0]: skipped["lines"] for skipped in outcome["unmapped"]}
    assert [8] in reasons.values()
    assert [9] in reasons.values()


def test_a_table_on_screen_names_what_was_not_predicted(slow: Path) -> None:
    result = runner.invoke(app, ["check", "--hardware", "h100", "--data", str(slow)])
    assert result.exit_code == 0, result.output
    assert "gemm" in result.stdout
    assert "int4_wo" in result.stdout


def test_a_cluster_stands_for_its_device(slow: Path) -> None:
    assert check("dgx-h100-ndr", [slow]).hardware == "h100-sxm5-80gb"


def test_rows_of_another_gpu_are_not_predicted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"gpu,{GEMM}\nh20,bf16,512,512,512,9.0,lib,x\nh100,bf16,512,512,512,9.0,lib,x\n")
    result = check("h100", [path])
    assert [len(p.measured) for p in result.points] == [1]
    assert "h20" in result.skipped[0].reason


def test_uneven_routing_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "moe.csv"
    path.write_text(
        "dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,distribution,kernel,time_us\n"
        "bf16,4096,4096,1536,8,128,1,1,power_law_1.2,moe,900\n"
        "bf16,4096,4096,1536,8,128,1,1,balanced,moe,900\n"
    )
    result = check("h100", [path])
    assert [p.kernel_class for p in result.points] == ["moe"]
    assert "loaded rank" in result.skipped[0].reason


def test_plots_are_written(slow: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    result = runner.invoke(app, ["check", "--hardware", "h100", "--data", str(slow), "--plots", str(folder)])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["gemm-bf16.png", "gemm-bf16.svg"]


def test_a_report_has_every_class_and_what_was_left_out(slow: Path, tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    result = runner.invoke(app, ["check", "--hardware", "h100", "--data", str(slow), "--report", str(page)])
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert re.findall('<section id="(.*?)"', text) == [
        "headline",
        "classes",
        "class-gemm-bf16",
        "not-predicted",
    ]
    assert "int4_wo" in text
    assert text.count('class="figure"') == 1


def test_fit_writes_an_overlay_that_check_uses(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    shapes = [(m, n, k) for m in (2048, 4096, 8192) for n in (1024, 4096, 8192) for k in (1024, 4096)]
    lines = []
    for m, n, k in shapes:
        lines.append(f"h100,bf16,1,{m},{n},{k},TN,False,bf16,{2.0 * m * n * k / 400e12 * 1e6 + 3.0},mine")
    path.write_text("\n".join(["gpu,dtype,b,m,n,k,layout,accumulate,out_dtype,time_us,source", *lines]))
    profile = tmp_path / "site.yaml"
    result = runner.invoke(app, ["fit", str(path), "--hardware", "h100", "-o", str(profile)])
    assert result.exit_code == 0, result.output
    before = np.abs(check("h100", [path]).to_dict()["overall"]["bias"])
    after = check("h100", [path], profile=str(profile)).to_dict()["overall"]
    assert before > 0.3
    assert after["median_abs_error"] < 0.06
    assert (
        load_kernel_profile(profile).gemm["bf16"].site
        < load_kernel_profile("h100-sxm5-80gb").gemm["bf16"].site
    )


def test_fit_says_which_class_lacks_data(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text(f"{GEMM}\nbf16,512,512,512,9.0,lib,x\n")
    result = runner.invoke(app, ["fit", str(path), "--hardware", "h100", "-o", str(tmp_path / "no.yaml")])
    assert isinstance(result.exception, SpecError)
    assert "gemm bf16" in result.output
    assert "at least 200" in result.output
    assert not (tmp_path / "no.yaml").exists()
