"""Every hardware file loads, is named after its file, and says where its numbers come from."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from simulator.spec import catalogue
from simulator.spec.cluster import ClusterSpec, DeviceSpec
from simulator.spec.load import load_cluster, load_device, load_link

DEVICES = catalogue.names("devices")
LINKS = catalogue.names("links")
CLUSTERS = catalogue.names("clusters")
FACTS = (
    "peak_flops",
    "peak_flops_sparse",
    "memory_bytes",
    "memory_bandwidth",
    "l2_bytes",
    "sm_count",
    "boost_hz",
    "tdp_w",
)
DATASHEETS = Path(__file__).parents[3] / "shared" / "reference" / "datasheets.csv"
ROW_OF = {
    "v100-sxm2-32gb": "V100-SXM2-32GB",
    "a100-sxm4-40gb": "A100-SXM4-40GB",
    "a100-sxm4-80gb": "A100-SXM4-80GB",
    "a100-pcie-80gb": "A100-PCIe-80GB",
    "h100-sxm5-80gb": "H100-SXM5-80GB",
    "h100-pcie-80gb": "H100-PCIe-80GB",
    "h800-sxm5-80gb": "H800-SXM5-80GB",
    "h200-sxm-141gb": "H200-SXM-141GB",
    "h20-sxm-96gb": "H20-SXM-96GB",
    "b200": "B200-HGX",
    "b300": "B300-HGX",
    "gb200": "GB200-NVL72 (per GPU)",
    "gb300": "GB300-NVL72 (per GPU)",
}


def test_the_promised_hardware_is_there() -> None:
    assert set(ROW_OF) | {"h100-sxm-96gb-500w"} <= set(DEVICES)
    assert {
        "nvlink2",
        "nvlink3",
        "nvlink4",
        "nvlink5",
        "nvlink4-h800",
        "nvlink-c2c",
        "pcie4-x16",
        "pcie5-x16",
        "infiniband-hdr",
        "infiniband-ndr",
        "infiniband-xdr",
        "roce-200",
        "roce-400",
        "roce-800",
    } <= set(LINKS)
    assert {
        "dgx-a100",
        "dgx-h100-ndr",
        "grand-teton-h100-roce",
        "dgx-h200",
        "dgx-b200-ndr",
        "dgx-b200-xdr",
        "dgx-b300",
        "gb200-nvl72",
        "gb300-nvl72",
    } <= set(CLUSTERS)


@pytest.mark.parametrize("name", DEVICES)
def test_device_loads_under_its_file_name_with_a_source_for_each_number(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    missing = [fact for fact in FACTS if getattr(device, fact) and not device.sources.get(fact)]
    assert not missing
    assert set(device.sources) <= set(FACTS)


@pytest.mark.parametrize("name", DEVICES)
def test_sparse_peaks_are_twice_the_dense_ones(name: str) -> None:
    device = load_device(name)
    for precision, sparse in device.peak_flops_sparse.items():
        assert sparse == pytest.approx(2 * device.peak_flops[precision], rel=1e-3), precision


@pytest.mark.parametrize("name", DEVICES)
def test_tensor_core_rates_double_as_precision_halves(name: str) -> None:
    """Up to fp8; fp4 gains more on Blackwell Ultra. fp16 and bf16 run alike."""
    peak = load_device(name).peak_flops
    if "fp16" in peak and "bf16" in peak:
        assert peak["fp16"] == peak["bf16"] == pytest.approx(2 * peak["tf32"], rel=1e-3)
    if "fp8" in peak:
        assert peak["fp8"] == pytest.approx(2 * peak["bf16"], rel=2e-3)


@pytest.mark.parametrize(
    ("name", "flop_per_clock_and_sm"),
    [("a100-sxm4-80gb", 2048), ("h100-sxm5-80gb", 4096), ("b200", 8192), ("gb200", 8192)],
)
def test_clock_and_units_give_the_published_peak(name: str, flop_per_clock_and_sm: int) -> None:
    device = load_device(name)
    peak = device.sm_count * device.boost_hz * flop_per_clock_and_sm
    assert peak == pytest.approx(device.peak_flops["bf16"], rel=2e-3)


def test_aliases_are_unique_and_hide_no_device() -> None:
    names = Counter(DEVICES)
    for device in DEVICES:
        names.update(load_device(device).aliases)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("alias", ["a100", "h100", "h200", "b200", "b300", "gb200", "gb300", "h800", "v100"])
def test_short_names_stand_for_a_device_and_its_usual_cluster(alias: str) -> None:
    assert load_device(alias).name.startswith(alias)
    assert load_cluster(alias).device == load_device(alias)


def test_at_most_one_cluster_is_the_default_of_a_device() -> None:
    defaults = Counter(load_cluster(name).default_for for name in CLUSTERS)
    assert [device for device, count in defaults.items() if device and count > 1] == []
    for name in CLUSTERS:
        cluster = load_cluster(name)
        assert cluster.default_for in {"", cluster.device.name}


@pytest.mark.parametrize("name", LINKS)
def test_link_loads_under_its_file_name_with_both_sources(name: str) -> None:
    link = load_link(name)
    assert link.name == name
    assert "bandwidth:" in link.source
    assert "latency:" in link.source


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_loads_under_its_file_name_with_a_source_for_each_part(name: str) -> None:
    cluster = load_cluster(name)
    assert cluster.name == name
    wanted = {"gpus_per_node", "scale_up", "scale_out", "tiers.latency_s", "host"}
    assert set(cluster.sources) == wanted | ({"max_gpus"} if cluster.max_gpus else set())


@pytest.mark.parametrize("name", CLUSTERS)
def test_switch_levels_widen_and_the_last_spans_the_cluster(name: str) -> None:
    tiers = load_cluster(name).scale_out.tiers
    assert tiers[-1].nodes == 0
    sizes = [tier.nodes for tier in tiers[:-1]]
    assert all(sizes)
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("name", CLUSTERS)
def test_nodes_fill_scale_up_domains(name: str) -> None:
    cluster = load_cluster(name)
    sizes = (cluster.scale_up.domain_size, cluster.gpus_per_node)
    assert max(sizes) % min(sizes) == 0
    assert cluster.gpus_per_node % cluster.scale_out.nics_per_node == 0


def per_gpu_network(cluster: ClusterSpec) -> float:
    return cluster.scale_out.link.bandwidth * cluster.scale_out.nics_per_node / cluster.gpus_per_node


@pytest.mark.parametrize(
    ("name", "gigabit_per_gpu", "nvlink_gigabyte"),
    [
        ("dgx-2-v100", 50, 150),
        ("dgx-a100", 200, 300),
        ("dgx-h100-ndr", 400, 450),
        ("grand-teton-h100-roce", 400, 450),
        ("h800-deepseek", 400, 200),
        ("dgx-b200-ndr", 400, 900),
        ("dgx-b200-xdr", 800, 900),
        ("dgx-b300", 800, 900),
        ("gb200-nvl72", 400, 900),
        ("gb300-nvl72", 800, 900),
        ("a100-80gb-roce-1600", 200, 300),
        ("a100-80gb-hdr-4nic", 100, 300),
        ("polaris-a100", 100, 300),
        ("a100-pcie-8", 25, 31.5),
        ("h100-pcie-bridged", 200, 300),
        ("gh200-nvl32", 400, 450),
        ("gb200-nvl576", 400, 900),
        ("tpu-v4-pod", 50, 300),
        ("tpu-v5p-pod", 50, 600),
        ("two-site-h100", 400, 450),
    ],
)
def test_bandwidths_per_gpu_are_the_documented_ones(
    name: str, gigabit_per_gpu: float, nvlink_gigabyte: float
) -> None:
    cluster = load_cluster(name)
    assert per_gpu_network(cluster) == pytest.approx(gigabit_per_gpu * 1e9 / 8)
    assert cluster.scale_up.link.bandwidth == pytest.approx(nvlink_gigabyte * 1e9)


def test_there_is_a_machine_for_every_kind_of_scale_up_domain() -> None:
    found = {(up.topology, up.domain_size) for up in (load_cluster(name).scale_up for name in CLUSTERS)}
    switched = {size for topology, size in found if topology == "switch"}
    assert {8, 32, 72, 576} <= switched
    assert {("mesh", 4), ("pcie", 8), ("bridge", 2), ("torus", 4096), ("torus", 8960)} <= found


def test_meta_pods_hold_3072_gpus_and_the_cluster_eight_of_them() -> None:
    cluster = load_cluster("grand-teton-h100-roce")
    rack, pod, aggregation = cluster.scale_out.tiers
    assert rack.nodes * cluster.gpus_per_node == 16
    assert pod.nodes * cluster.gpus_per_node == 3072
    assert cluster.max_gpus == 8 * 3072
    assert (rack.oversubscription, pod.oversubscription, aggregation.oversubscription) == (1, 1, 7)


def datasheet_rows() -> dict[str, dict[str, str]]:
    if not DATASHEETS.is_file():
        pytest.skip("the collected datasheets are not beside this checkout")
    with DATASHEETS.open(newline="") as file:
        return {row["accelerator"]: row for row in csv.DictReader(file)}


def assert_agrees(device: DeviceSpec, row: dict[str, str]) -> None:
    columns = {
        "peak_bf16_dense_tflops": (device.peak_flops.get("bf16", 0.0), 1e12),
        "peak_fp8_dense_tflops": (device.peak_flops.get("fp8", 0.0), 1e12),
        "peak_fp4_dense_tflops": (device.peak_flops.get("fp4", 0.0), 1e12),
        "hbm_bw_gbps": (device.memory_bandwidth, 1e9),
        "tdp_w": (device.tdp_w, 1.0),
        "sm_count": (float(device.sm_count), 1.0),
    }
    for column, (value, unit) in columns.items():
        if row[column]:
            assert value == pytest.approx(float(row[column]) * unit, rel=1e-6), column
    assert device.memory_bytes == pytest.approx(float(row["hbm_capacity_gb"]) * 2**30, rel=0.03)


@pytest.mark.parametrize("name", sorted(ROW_OF))
def test_device_agrees_with_the_collected_datasheets(name: str) -> None:
    assert_agrees(load_device(name), datasheet_rows()[ROW_OF[name]])
