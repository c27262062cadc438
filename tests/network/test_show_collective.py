"""``stepcast show collective``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.cli.app import main
from simulator.network.table import collective_name, collective_table
from simulator.spec.load import load_cluster


def shown(*words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["show", "collective", *words])
    assert stopped.value.code == 0


def test_the_table_lines_up_with_nccl_tests(capsys: pytest.CaptureFixture[str]) -> None:
    shown("all_reduce", "--hardware", "dgx-h100-ndr", "--ranks", "64", "-b", "64K", "-e", "256K")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("#")] == ["65536", "131072", "262144"]
    size, microseconds, algorithm_bandwidth, bus_bandwidth = map(float, lines[-1].split()[:4])
    assert algorithm_bandwidth == pytest.approx(size / microseconds / 1e3, rel=0.02)
    assert bus_bandwidth == pytest.approx(algorithm_bandwidth * 2 * 63 / 64, rel=0.02)


def test_json_has_the_rows_in_si_units(capsys: pytest.CaptureFixture[str]) -> None:
    shown("alltoall", "--hardware", "h200", "--ranks", "8", "-b", "1M", "-e", "1M", "--json", "-")
    facts = json.loads(capsys.readouterr().out)
    (row,) = facts["rows"]
    assert (facts["collective"], facts["ranks"], row["size_bytes"]) == ("all_to_all", 8, 2**20)
    assert 5e-6 < row["seconds"] < 50e-6
    assert row["algorithm"] == "pairwise"


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    shown("all_gather", "--hardware", "h100", "--plot", str(tmp_path / "p.png"), "-e", "1M")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("all_sorts", "--hardware", "h100"), "all_reduce, all_gather"),
        (("al_reduce", "--hardware", "h100"), "try:  all_reduce"),
        (("all_reduce", "--hardware", "h1000"), "--hardware: 'h1000'"),
        (("all_reduce", "--hardware", "h100", "--ranks", "9" * 20), "at most 1,048,576"),
        (("all_reduce", "--hardware", "h800-deepseek", "--ranks", "4096"), "has at most 2,048"),
        (("all_reduce", "--hardware", "h100", "--ranks-per-node", "-1"), "at least 1, or 0"),
        (("all_reduce", "--hardware", "h100", "-b", "1G", "-e", "1K"), "must not be the smaller"),
        (("all_reduce", "--hardware", "h100", "--ranks", "1"), "at least 2"),
        (("all_reduce", "--hardware", "h100", "-b", "2X"), "-b '2X'"),
        (("all_to_all", "--hardware", "h100", "--imbalance", "2"), "only in an all_to_all_v"),
        (("all_to_all_v", "--hardware", "h100", "--imbalance", "9"), "1 to 8 times the mean"),
        (("all_reduce", "--hardware", "h100", "--ranks-per-node", "3"), "3 ranks per node"),
        (("all_reduce", "--hardware", "h100", "--plot", "p.txt"), ".png, .svg or .pdf"),
    ],
)
def test_mistakes_get_one_message(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["show", "collective", *words])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_one_rank_per_node_leaves_each_its_own_nic() -> None:
    rows = collective_table("all_gather", load_cluster("dgx-h100-ndr"), 16, ranks_per_node=1)
    assert 0.8 * 50e9 < rows[-1].bus_bandwidth <= 50e9


def test_names_of_nccl_tests_are_understood() -> None:
    assert collective_name("all_reduce_perf") == "all_reduce"
    assert collective_name("alltoall") == "all_to_all"
    assert collective_name("ReduceScatter") == "reduce_scatter"
    assert collective_name("alltoallv_perf") == "all_to_all_v"
    assert collective_name("sendrecv_perf") == "send_recv"


def test_the_busiest_rank_of_an_all_to_all_v_decides() -> None:
    h200 = load_cluster("h200")
    even, uneven = (
        collective_table("all_to_all_v", h200, 8, smallest=2**30, largest=2**30, imbalance=i)[0]
        for i in (1.0, 2.0)
    )
    assert even == collective_table("all_to_all", h200, 8, smallest=2**30, largest=2**30)[0]
    assert even.bus_bandwidth == pytest.approx(2 * uneven.bus_bandwidth, rel=0.02)


def test_messages_between_neighbours_are_shown_as_nccl_tests_sendrecv() -> None:
    (row,) = collective_table("send_recv", load_cluster("dgx-h100-ndr"), 16, smallest=2**30, largest=2**30)
    assert row.algorithm_bandwidth == row.bus_bandwidth
    assert 0.8 * 50e9 < row.bus_bandwidth <= 50e9
