"""Reading measured collectives: tables, nccl-tests logs, and the machines their words describe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.fit_network.machines import Machine, Unmapped, machine_of
from calibration.fit_network.nccl_tests import read_log, table_lines
from calibration.fit_network.rows import CollectiveRow, bus_factor, read_table

LOG = """\
# nThread 1 nGpus 1 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 5 iters: 20
#
# Using devices
#  Rank  0 Group  0 Pid    101 on   node-a device  0 [0x10] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid    102 on   node-b device  0 [0x10] NVIDIA H100 80GB HBM3
NCCL version 2.22.3+cuda12.5
#
#  out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong  time algbw busbw
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
     1048576        262144     float     sum      -1    26.49   39.58   39.58  0  26.46 39.62 39.62
     2097152        524288     float     sum      -1    38.90   53.91   53.91  0  39.00 53.77 53.77
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 46.7
"""


def row(device: str, fabric: str, ranks: int, nodes: int) -> CollectiveRow:
    return CollectiveRow(
        collective="all_reduce",
        size_bytes=1e6,
        ranks=ranks,
        nodes=nodes,
        seconds=1e-3,
        device=device,
        fabric=fabric,
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_log_tells_its_ranks_hosts_device_and_version(tmp_path: Path) -> None:
    first, second = read_log(write(tmp_path / "all_reduce.log", LOG), fabric="2 nodes, 8x400G InfiniBand")
    assert (first.collective, first.ranks, first.nodes, first.device) == ("all_reduce", 2, 2, "h100")
    assert (first.library, first.line, first.dtype) == ("2.22.3", 11, "float")
    assert second.size_bytes == 2097152
    assert second.seconds == pytest.approx(38.90e-6)


def test_a_log_of_an_older_release_has_no_root_column(tmp_path: Path) -> None:
    text = LOG.replace("   redop    root ", "   redop ").replace(" sum      -1 ", " sum ")
    assert read_log(write(tmp_path / "all_reduce.log", text))[0].seconds == pytest.approx(26.49e-6)


def test_launcher_prefixes_are_ignored(tmp_path: Path) -> None:
    text = "".join(f"[1,0]<stdout>: {line}\n" for line in LOG.splitlines())
    assert len(read_log(write(tmp_path / "all_reduce.log", text))) == 2


def test_the_same_measurements_as_json(tmp_path: Path) -> None:
    document = {
        "args": "./build/all_gather_perf -b 1M",
        "ranks": [{"rank": r, "hostname": f"n{r // 8}", "device_info": "NVIDIA B200"} for r in range(16)],
        "results": [{"size": 1048576, "type": "float", "out_of_place": {"time": 63.8}}],
    }
    (only,) = read_log(write(tmp_path / "log.json", json.dumps(document)))
    assert (only.collective, only.ranks, only.nodes, only.device) == ("all_gather", 16, 2, "b200")
    assert only.seconds == pytest.approx(63.8e-6)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("26.49", "fast"), r"log:11: 'fast' in column 6"),
        (("26.49", "0.00"), r"log:11: .*not a measurement"),
        (("#       size", "#       xxxx"), r"log:11: a measurement before the header"),
        (("#  Rank", "#  Mark"), "give the number of ranks"),
    ],
)
def test_a_damaged_log_says_where(tmp_path: Path, damage: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_log(write(tmp_path / "all_reduce.log", LOG.replace(*damage)))


def test_broken_json_says_where(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"log.json:2: not valid JSON"):
        read_log(write(tmp_path / "log.json", '{"results": [\n oops'))
    with pytest.raises(ValueError, match=r"results\[0\]"):
        read_log(write(tmp_path / "log.json", '{"results": [{"size": 4}]}'))


def test_an_imported_log_reads_back_as_a_table(tmp_path: Path) -> None:
    rows = read_log(write(tmp_path / "all_reduce.log", LOG), fabric="8x400G InfiniBand")
    table = write(
        tmp_path / "table.csv", "\n".join(",".join(f'"{c}"' for c in line) for line in table_lines(rows))
    )
    back = read_table(table)
    assert [(r.device, r.collective, r.size_bytes, r.ranks, r.nodes) for r in back] == [
        (r.device, r.collective, r.size_bytes, r.ranks, r.nodes) for r in rows
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("all_gather,1024,x,1,9.0", r"csv:2: invalid literal"),
        ("all_sorts,1024,8,1,9.0", r"csv:2: collective 'all_sorts'"),
        ("all_gather,1024,8,1,0", r"csv:2: .*not a measurement"),
    ],
)
def test_a_damaged_table_says_where(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "t.csv", f"collective,size_bytes,nranks,nodes,time_us\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column time_us"):
        read_table(write(tmp_path / "t.csv", "collective,size_bytes,nranks\n"))


@pytest.mark.parametrize(
    ("device", "fabric", "ranks", "nodes", "expected"),
    [
        ("h100", "AWS p5: 8xH100/node, EFA 3200G/node", 16, 2, ("efa", 8, 32, 12.5e9)),
        ("a100", "AWS p4de: 8xA100-80GB/node, EFA 4x100G", 16, 2, ("efa-p4d", 8, 4, 12.5e9)),
        ("h100", "GCP A3 Mega: 8xH100/node, 8x200G TCPXO", 16, 2, ("tcpxo", 8, 8, 25e9)),
        ("a100", "4xA100-40GB SXM/node NVLink3, 2x200G Slingshot-11/node", 32, 8, ("slingshot", 4, 2, 25e9)),
        ("b200", "HGX B200 x2, 8x NDR400 ConnectX-7/node", 16, 2, ("infiniband", 8, 8, 50e9)),
        ("h200", "H200 x2, 8x400GbE RoCE (BlueField-3) per node", 16, 2, ("roce", 8, 8, 50e9)),
        ("a100", "8xA100-40GB nodes, InfiniBand", 16, 2, ("infiniband", 8, 8, 25e9)),
        (
            "gb200",
            "GB200 NVL72, 2 racks, MNNVL in rack + RoCE between racks",
            128,
            32,
            ("nvlink-racks", 4, 4, 50e9),
        ),
    ],
)
def test_fabric_texts_become_machines(
    device: str, fabric: str, ranks: int, nodes: int, expected: tuple[str, int, int, float]
) -> None:
    machine = machine_of(row(device, fabric, ranks, nodes))
    assert isinstance(machine, Machine)
    c = machine.cluster
    assert (c.fabric, c.gpus_per_node, c.scale_out.nics_per_node, c.scale_out.link.bandwidth) == expected


def test_a_rack_stays_one_domain() -> None:
    machine = machine_of(row("gb200", "GB200 NVL72, 1 rack(s), MNNVL in rack", 72, 18))
    assert isinstance(machine, Machine)
    assert machine.cluster.scale_up.domain_size == 72


@pytest.mark.parametrize(
    ("device", "fabric", "reason"),
    [
        ("", "8x400G InfiniBand", "no device"),
        ("h100", "a very nice cluster", "names no network"),
        ("h100", "16 GPUs in a box, InfiniBand", "16 ranks on 1 nodes"),
    ],
)
def test_rows_that_cannot_be_mapped_say_why(device: str, fabric: str, reason: str) -> None:
    found = machine_of(row(device, fabric, 16, 1 if "box" in fabric else 2))
    assert isinstance(found, Unmapped)
    assert reason in found.reason


def test_sites_that_say_they_are_not_tuned_are_marked() -> None:
    machine = machine_of(row("h100", "2x H100, 8x NDR400 (network under-performing)", 16, 2))
    assert isinstance(machine, Machine)
    assert not machine.tuned


def test_bus_factors_are_those_of_nccl_tests() -> None:
    assert bus_factor("all_reduce", 8) == 1.75
    assert bus_factor("all_gather", 8) == bus_factor("all_to_all", 8) == 0.875
    assert bus_factor("broadcast", 8) == 1.0
