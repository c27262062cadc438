"""Every run file passes the layout rules; those of published runs say what was published."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from simulator.graph.flops import find_convention
from simulator.simulate import simulate
from simulator.spec import catalogue
from simulator.spec.load import load_run
from simulator.validation.row_to_run import PRECISIONS

RUNS = catalogue.names("runs")
COLLECTED = Path(__file__).parents[3] / "shared" / "reference" / "training_runs.csv"
ROW_OF = {
    "llama3.1-405b-8192-h100": "llama3herd-tab4-1",
    "llama3.1-405b-16384-h100": "llama3herd-tab4-2",
    "megatron-1.7b-32-a100-sc21": "sc21-table1-1.7b",
    "megatron-3.6b-64-a100-sc21": "sc21-table1-3.6b",
    "megatron-18.4b-256-a100-sc21": "sc21-table1-18.4b",
    "megatron-39.1b-512-a100-sc21": "sc21-table1-39.1b",
    "megatron-145.6b-1536-a100-sc21": "sc21-table1-145.6b",
    "megatron-310.1b-1920-a100-sc21": "sc21-table1-310.1b",
    "megatron-1t-3072-a100-sc21": "sc21-table1-1008.0b",
    "llama3-70b-64-h100": "mbridge-26.04.01-llama3-70b-h100-fp8-cs-64g-gbs256-pretrain",
    "llama3.1-405b-1024-h100-fp8": "mbridge-26.04.01-llama31-405b-h100-fp8-cs-1024g-gbs1536-pretrain",
    "llama3.1-8b-64-h100-torchtitan-2d": "titan-asynctp-8b-bf16-async",
    "llama3.1-8b-128-h100-torchtitan-1d": "titan-t3-compile",
    "llama3.1-8b-8-h100-256k": "titan-t2-cp8-seq262144",
    "qwen3-235b-a22b-256-gb300": "mbridge-26.06.01-qwen3-235b-a22b-gb300-fp8-mx-256g-gbs8192-pretrain",
    "kimi-k2-256-gb300": "mbridge-26.06-kimi-k2-gb300-fp8-mx-256g-gbs4096-pretrain",
    "nemotron4-340b-128-gb200": "dgxc-v25.05.05-nemotron4-340b-gb200-bf16-128g",
    "grok1-314b-512-h100": "dgxc-v24.11.1-grok1-314b-h100-bf16-512g",
    "megatron-22b-8-a100-full-recompute": "kort22-tab5-meg-22b-full",
    "megatron-22b-8-a100-sequence-parallel": "kort22-tab5-meg-22b-seqsel",
    "megatron-175b-64-a100-full-recompute": "kort22-tab5-meg-175b-full",
    "megatron-175b-64-a100-sequence-parallel": "kort22-tab5-meg-175b-seqsel",
    "megatron-1t-512-a100-full-recompute": "kort22-tab5-meg-1t-full",
    "megatron-1t-512-a100-sequence-parallel": "kort22-tab5-meg-1t-seqsel",
}
PRINTED_TFLOPS = {
    "megatron-1.7b-32-a100-sc21": 137,
    "megatron-3.6b-64-a100-sc21": 138,
    "megatron-18.4b-256-a100-sc21": 135,
    "megatron-39.1b-512-a100-sc21": 138,
    "megatron-145.6b-1536-a100-sc21": 148,
    "megatron-310.1b-1920-a100-sc21": 155,
    "megatron-1t-3072-a100-sc21": 163,
}


@pytest.mark.parametrize("name", RUNS)
def test_run_loads_under_its_file_name(name: str) -> None:
    run = load_run(name)
    assert run.name == name
    assert run.gpus == run.dp * run.parallelism.tp * run.parallelism.pp * run.parallelism.cp


@pytest.mark.parametrize("name", RUNS)
def test_run_is_simulated_with_as_few_microbatches_as_its_schedule_takes(name: str) -> None:
    run = load_run(name)
    fewest = run.training.micro_batch_size * run.dp * 2 * run.parallelism.pp
    batch = min(fewest, run.training.global_batch_size)
    result = simulate(replace(run, training=replace(run.training, global_batch_size=batch)))
    assert result.step_time_s == pytest.approx(sum(result.breakdown_s.values()))
    assert 0 < result.step_time_s < 1000
    assert 0 < result.hfu < 1


@pytest.mark.parametrize("name", sorted(ROW_OF))
def test_published_run_names_its_source_and_figure(name: str) -> None:
    published = load_run(name).published
    assert published is not None
    assert "arXiv" in published.source or "/" in published.source, "a paper or a page"
    assert published.step_time_s or published.model_tflops_per_gpu


def test_the_main_run_is_the_papers_row() -> None:
    run = load_run("llama3.1-405b-16384-h100")
    p = run.parallelism
    assert (run.gpus, p.tp, p.pp, p.vp, run.dp, run.microbatches) == (16384, 8, 16, 8, 128, 16)
    assert p.pp * p.vp == run.model.num_hidden_layers + 2
    assert run.published is not None
    assert run.published.model_tflops_per_gpu == 400
    peak = run.cluster.device.peak_flops["bf16"]
    assert 400e12 / peak == pytest.approx(0.404, abs=5e-4)
    assert any(assumption.startswith("vp 8") for assumption in run.assumptions)


@pytest.mark.parametrize("name", sorted(PRINTED_TFLOPS))
def test_derived_step_time_gives_back_the_printed_rate(name: str) -> None:
    """Narayanan et al. 2021 print TFLOP/s; the run files hold the step time that follows."""
    run = load_run(name)
    assert run.published is not None
    flops = find_convention(run.published.flops_convention).flops_per_step(
        run.model,
        seq_length=run.training.seq_length,
        global_batch_size=run.training.global_batch_size,
    )
    rate = flops / run.published.step_time_s / run.gpus
    assert rate == pytest.approx(PRINTED_TFLOPS[name] * 1e12, rel=1e-4)


def collected_rows() -> dict[str, dict[str, str]]:
    if not COLLECTED.is_file():
        pytest.skip("the collected runs are not beside this checkout")
    with COLLECTED.open(newline="") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("name", sorted(ROW_OF))
def test_run_agrees_with_the_collected_row(name: str) -> None:
    row, run = collected_rows()[ROW_OF[name]], load_run(name)
    p, t = run.parallelism, run.training
    given = {
        "gpus": run.gpus,
        "gpus_per_node": run.cluster.gpus_per_node,
        "seq_len": t.seq_length,
        "gbs": t.global_batch_size,
        "mbs": t.micro_batch_size,
        "tp": p.tp,
        "pp": p.pp,
        "vp": p.vp,
        "dp": run.dp,
        "num_layers": run.model.num_hidden_layers,
        "hidden_size": run.model.hidden_size,
        "step_time_s": run.published.step_time_s if run.published else 0,
    }
    for column, value in given.items():
        if row[column]:
            digits = 1e-3 if column == "step_time_s" else 1e-9  # run files round derived step times
            assert value == pytest.approx(float(row[column]), rel=digits), column
    assert PRECISIONS[row["precision"]] == (t.precision, t.fp8_recipe)
    if row["sp"]:
        assert run.sequence_parallel == (row["sp"] == "True")
    if row["recompute"]:
        assert row["recompute"].startswith(t.recompute.granularity)
    if row["dp_overlap"].startswith(("overlapped", "not overlapped")):
        assert run.runtime.overlap_grad_reduce == row["dp_overlap"].startswith("overlapped")
