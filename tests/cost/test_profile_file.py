"""Kernel profiles: what ships is complete and sourced; overlays, transfers and wrong files behave."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from simulator.cost.catalog import kernels_for
from simulator.cost.profile_file import kernel_profile_names, load_kernel_profile
from simulator.graph.operators import Gemm
from simulator.spec.catalogue import names
from simulator.spec.errors import SpecError
from simulator.spec.load import load_cluster, load_device

FITTED = ("a100-sxm4-80gb", "h100-sxm5-80gb", "h200-sxm-141gb", "b200", "b300", "gb200", "gb300")


def written(tmp_path: Path, **document: object) -> Path:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump({"format_version": 1, "name": "mine", **document}))
    return path


@pytest.mark.parametrize("name", kernel_profile_names())
def test_every_class_says_where_it_comes_from(name: str) -> None:
    profile = load_kernel_profile(name)
    for section in (profile.gemm, profile.grouped_gemm, profile.memory_bound, profile.copy):
        for key, fit in section.items():
            assert fit.sources or fit.notes, key
            assert 0 < fit.random < 0.5
            assert 0 < fit.site < 0.5


@pytest.mark.parametrize("name", FITTED)
def test_fractions_refer_to_the_devices_own_datasheet(name: str) -> None:
    profile, device = load_kernel_profile(name), load_device(name)
    assert profile.fitted_on["memory_bandwidth"] == pytest.approx(device.memory_bandwidth, rel=1e-3)
    for dtype, rate in device.peak_flops.items():
        assert profile.fitted_on[dtype] == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "dtype", "median", "p90"),
    [
        ("a100-sxm4-80gb", "bf16", 0.04, 0.12),
        ("h100-sxm5-80gb", "bf16", 0.04, 0.12),
        ("h200-sxm-141gb", "bf16", 0.04, 0.12),
        ("b200", "bf16", 0.055, 0.13),
        ("h100-sxm5-80gb", "fp8", 0.04, 0.10),
        ("h200-sxm-141gb", "fp8", 0.04, 0.10),
        ("b200", "fp8", 0.04, 0.10),
        ("h100-sxm5-80gb", "fp8_block", 0.08, 0.27),
        ("h200-sxm-141gb", "fp8_block", 0.10, 0.30),
        ("b200", "fp8_block", 0.08, 0.27),
    ],
)
def test_stated_errors_are_those_promised(name: str, dtype: str, median: float, p90: float) -> None:
    figures = load_kernel_profile(name).gemm[dtype].held_out
    assert figures is not None
    assert figures.points > 1000
    assert figures.median <= median
    assert figures.p90 <= p90


def test_every_shipped_cluster_has_a_kernel_model() -> None:
    for name in names("clusters"):
        cluster = load_cluster(name)
        if cluster.device.architecture in {"tpu", "other"}:
            continue
        dtype = "bf16" if "bf16" in cluster.device.peak_flops else "fp16"
        assert kernels_for(cluster).estimate(Gemm(name="g", m=512, n=512, k=512, dtype=dtype)).seconds > 0


def test_a_transferred_profile_is_marked_and_less_sure() -> None:
    own, carried = load_kernel_profile("h100-sxm5-80gb"), load_kernel_profile("h800-sxm5-80gb")
    assert carried.gemm["bf16"].basis == "transfer"
    assert carried.gemm["bf16"].coefficients == own.gemm["bf16"].coefficients
    assert carried.gemm["bf16"].site == pytest.approx(math.hypot(own.gemm["bf16"].site, 0.05))


def test_an_overlay_replaces_only_its_own_classes(tmp_path: Path) -> None:
    coefficients = {"efficiency": 0.5, "bandwidth": 0.7, "fixed_s": 2e-6}
    gemm = {"bf16": {"coefficients": coefficients, "random": 0.05, "site": 0.03}}
    overlay = load_kernel_profile(written(tmp_path, base="b200", gemm=gemm))
    base = load_kernel_profile("b200")
    assert overlay.name == "mine"
    assert overlay.gemm["bf16"].coefficients.efficiency == 0.5
    assert overlay.gemm["fp8"] == base.gemm["fp8"]
    assert overlay.attention == base.attention


def test_an_older_format_is_refused_with_the_way_to_convert(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("format_version: 0\nname: old\n")
    with pytest.raises(SpecError, match=r"old.yaml(.|\n)*format_version(.|\n)*calibrate fit"):
        load_kernel_profile(path)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="h100-sxm5-80gb"):
        load_kernel_profile("h100-smx5-80gb")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a list", "mapping"),
        ("a: [", "YAML"),
        (
            "format_version: 1\nname: x\nbase: b200\ngemm: {bf16: {random: 0.1, site: 0.1}}",
            "gemm.bf16.coefficients",
        ),
        ("format_version: 1\nname: x\nbase: b200\ngemmm: {}", "gemmm"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=said):
        load_kernel_profile(path)


def test_a_base_is_found_beside_the_profile_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, base="h100-sxm5-80gb").rename(tmp_path / "below.yaml")
    path = written(tmp_path, base="./below.yaml", name="above")
    monkeypatch.chdir(tmp_path.parent)
    assert load_kernel_profile(path).gemm == load_kernel_profile("h100-sxm5-80gb").gemm


@pytest.mark.parametrize(
    ("content", "said"), [(b"caf\xe9", "not UTF-8"), (b"\0", "binary"), (b"[]", "mapping"), (b"", "mapping")]
)
def test_what_is_no_profile_is_told_as_such(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / f"{said}.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=said):
        load_kernel_profile(path)
