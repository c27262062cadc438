"""Collectives of a job: which are measured, and what a site's fit makes of them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from calibration.fit_network.fit import HeldOut
from calibration.fit_network.machines import placement_of
from calibration.fit_network.rows import CollectiveRow, read_table
from calibration.fit_network.site import SiteFabrics, fit_site_fabrics
from calibration.measure.collectives import COLLECTIVES, collective_plan
from calibration.measure.plan import TINY
from simulator.network.collectives import Network
from simulator.network.fabric import fabric_for
from simulator.spec.cluster import ClusterSpec
from simulator.spec.errors import SpecError
from simulator.spec.load import load_cluster, load_run

DGX = load_cluster("dgx-h100-ndr")
SIZES = tuple(2**power for power in range(10, 30, 2))
SLOWER = 1.3  # the site's time over that of the shipped profile


@pytest.mark.parametrize(
    ("ranks", "per_node", "shapes"),
    [
        (8, 8, {(2, 1), (4, 1), (8, 1)}),
        (6, 6, {(2, 1), (4, 1), (6, 1)}),
        (32, 8, {(2, 1), (4, 1), (8, 1), (2, 2), (16, 2), (4, 4), (32, 4)}),
        (4, 1, {(2, 2), (4, 4)}),
    ],
)
def test_groups_inside_a_node_of_nodes_and_across_them(
    ranks: int, per_node: int, shapes: set[tuple[int, int]]
) -> None:
    cases = list(collective_plan(ranks, per_node, scale=TINY))
    assert {(case.number("nranks"), case.number("nodes")) for case in cases} == shapes
    assert {case.text("collective") for case in cases} == set(COLLECTIVES)
    assert len({case.columns for case in cases}) == len(cases)
    first = cases[: len(COLLECTIVES) - 1]
    assert {case.number("nranks") for case in first} == {ranks}


def measured(cluster: ClusterSpec, collective: str, ranks: int, nodes: int) -> list[CollectiveRow]:
    """Rows of a site that takes ``SLOWER`` times as long as the shipped profile says."""
    network = Network(cluster, placement_of(cluster, ranks, nodes))
    return [
        CollectiveRow(
            collective=collective,
            size_bytes=size,
            ranks=ranks,
            nodes=nodes,
            seconds=SLOWER * network.collective(collective, size, "dp").seconds,  # type: ignore[arg-type]
            source="own",
        )
        for size in SIZES
    ]


@cache
def site() -> SiteFabrics:
    rows = [row for ranks in (2, 4, 8) for row in measured(DGX, "all_gather", ranks, 1)]
    rows += measured(DGX, "all_to_all", 32, 4)
    return fit_site_fabrics("mine", DGX, [*rows, *measured(DGX, "all_reduce", 16, 2)[:3]])


def test_a_sites_fit_takes_its_times_and_lends_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mine.fabric.yaml"
    path.write_text(yaml.safe_dump(site().document), encoding="utf-8")
    own = replace(DGX, fabric=str(path))
    for collective, ranks, nodes, slower in (
        ("all_gather", 8, 1, SLOWER),
        ("all_to_all", 32, 4, SLOWER),
        ("all_reduce", 8, 1, 1.0),
    ):
        for row in measured(DGX, collective, ranks, nodes)[5:]:
            network = Network(own, placement_of(own, ranks, nodes))
            seconds = network.collective(collective, row.size_bytes, "dp").seconds  # type: ignore[arg-type]
            assert seconds == pytest.approx(row.seconds / SLOWER * slower, rel=0.15)
    run = load_run("llama3-8b-8-h100", [f"cluster.fabric={path}"])
    assert fabric_for(run.cluster).name == "mine + mine"


def test_errors_are_those_of_rows_held_out_and_scarce_data_is_refused() -> None:
    error = site().errors["inside a domain, sizes, 64 KB and more"]
    assert isinstance(error, HeldOut)
    assert error.median < 0.1
    assert site().refused == ("all_reduce between domains: 3 rows, at least 8 are needed",)
    assert fit_site_fabrics("mine", DGX, []).document == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("format_version: 0\nscale_up: {}\n", "fit the data again"),
        ("format_version: 1\nscale_in: {}\n", "scale_up and scale_out"),
        ("format_version: 1\n", "scale_up and scale_out"),
    ],
)
def test_a_file_that_is_no_sites_fabric_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=complaint):
        fabric_for(replace(DGX, fabric=str(path)))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_two_processes_measure_collectives(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    stepcast = ["--no-python", str(Path(sys.executable).with_name("stepcast"))]
    measure = ["calibrate", "measure", "-o", str(tmp_path), "--device=cpu", "--tiny", "--gpu=h100"]
    said = subprocess.run(
        [*launch, *stepcast, *measure],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    rows = read_table(tmp_path / "collective.csv")
    assert {row.ranks for row in rows} == {2}
    assert len(rows) == len(COLLECTIVES) * len(TINY.messages)
    assert f"{len(rows)} cases measured, 0 on file before" in said.stdout
