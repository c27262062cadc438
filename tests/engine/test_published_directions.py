"""Gains of software switches against published pairs of runs: a ratio needs no absolute accuracy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec
from simulator.validation.published import PublishedRun
from simulator.validation.row_to_run import to_run
from simulator.validation.rows import shipped_rows


def as_benchmarked(run: RunSpec) -> RunSpec:
    return replace(run, simulation=replace(run.simulation, sustained=False))


@cache
def rows() -> dict[str, PublishedRun]:
    return {row.run_id: row for row in shipped_rows()}


def gain(before: str, after: str) -> tuple[float, float]:
    """Measured and predicted step time of one row over another's.

    At benchmarked rates: sustained ones are fitted for each width of numbers, on other runs too.
    """
    pair = [rows()[before], rows()[after]]
    measured = [row.measured.step_time_s or 0.0 for row in pair]
    predicted = [simulate(as_benchmarked(to_run(row))).step_time_s for row in pair]
    return measured[0] / measured[1], predicted[0] / predicted[1]


@pytest.mark.parametrize(
    ("model", "suffix"),
    [
        ("v24.11.1-nemotron4-15b-h100", "16g"),
        ("v25.04.02-nemotron4-15b-h100", "64g"),
        ("v25.05.05-nemotron4-340b-gb200", "128g"),
        ("v25.05.05-nemotron4-340b-gb200", "256g-strong"),
    ],
)
def test_fp8_gains_as_much_over_bf16_as_published(model: str, suffix: str) -> None:
    measured, predicted = gain(f"dgxc-{model}-bf16-{suffix}", f"dgxc-{model}-fp8-ds-{suffix}")
    assert predicted == pytest.approx(measured, rel=0.08)


@pytest.mark.parametrize("precision", ["bf16", "fp8-tw"])
def test_async_tensor_parallelism_gains_about_a_tenth(precision: str) -> None:
    """TorchTitan, Llama 3.1 8B on 64 H100 (June 2025): 9.9 % in bf16, 9.7 % in fp8."""
    name = f"titan-asynctp-8b-{precision}"
    measured, predicted = gain(f"{name}-vanilla", f"{name}-async")
    assert measured == pytest.approx(1.10, abs=0.01)
    assert 1.05 < predicted < 1.20


@pytest.mark.parametrize("model", ["22b-8", "175b-64", "1t-512"])
def test_full_recompute_costs_what_korthikanti_measured(model: str) -> None:
    """Full recompute with tensor parallelism over selective recompute with sequence parallelism: table 5."""
    runs = [load_run(f"megatron-{model}-a100-{kind}") for kind in ("full-recompute", "sequence-parallel")]
    measured = [run.published.step_time_s for run in runs if run.published]
    predicted = [simulate(run).step_time_s for run in runs]
    assert predicted[0] / predicted[1] == pytest.approx(measured[0] / measured[1], rel=0.06)


def test_a_run_says_which_algorithms_its_collectives_use() -> None:
    used = simulate(load_run("llama3.1-405b-16384-h100")).provenance["collectives"]
    assert any(line.startswith("tp all-gather: ring") for line in used)
    assert any("dp_cp" in line for line in used)


def test_seven_to_one_between_pods_harms_405b_only_where_its_pipelines_cross_it() -> None:
    """Llama 3 (arXiv 2407.21783, sections 3.3.1 and 3.3.2): 1:7 between pods, with DP the outermost axis."""
    run = load_run("llama3.1-405b-16384-h100")
    apart = replace(run, runtime=replace(run.runtime, rank_order="tp-cp-ep-dp-pp"))
    losses = []
    for placed in (run, apart):
        out = placed.cluster.scale_out
        tiers = (*out.tiers[:-1], replace(out.tiers[-1], oversubscription=1.0))
        full = replace(placed, cluster=replace(placed.cluster, scale_out=replace(out, tiers=tiers)))
        losses.append(simulate(placed).step_time_s / simulate(full).step_time_s - 1)
    assert losses[0] == pytest.approx(0.0, abs=1e-4)
    assert 0.02 < losses[1] < 0.3


def test_interleaving_405b_gains_as_in_torchtitans_table_5() -> None:
    """100 → 128 tokens/s per GPU; the table states neither the micro batch nor the chunks per rank."""
    took = []
    for name, vp in (("titan-t5-1f1b", 1), ("titan-t5-int1f1b", 2)):
        row = rows()[name]
        run = to_run(replace(row, layout=replace(row.layout, micro_batch_size=1, vp=vp)))
        split = replace(run.parallelism, stage_split="even")
        took.append(simulate(replace(run, parallelism=split)).step_time_s)
    assert 1.05 < took[0] / took[1] < 1.35
