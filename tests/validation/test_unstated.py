"""What a row leaves open: its software's defaults, and that a run that ran did fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from simulator.simulate import simulate, simulate_memory
from simulator.validation.published import PublishedRun
from simulator.validation.row_to_run import NotExpressibleError, refusals, to_run
from simulator.validation.rows import shipped_rows
from simulator.validation.unstated import with_unstated_layout, with_unstated_savings

ROWS = {row.run_id: row for row in shipped_rows()}
OPEN = ROWS["mbridge-25.09-llama31-405b-gb200-fp8-cs-128g-gbs64-pretrain"]
STATED = ROWS["sc21-table1-1.7b"]


def with_recompute(row: PublishedRun, granularity: str) -> PublishedRun:
    return replace(row, recipe=replace(row.recipe, recompute=granularity))


def test_an_open_recipe_that_cannot_fit_gets_the_fastest_that_does() -> None:
    run = to_run(OPEN)
    assert simulate_memory(run).verdict == "does not fit"
    saved, words = with_unstated_savings(OPEN, run)
    assert simulate_memory(saved).verdict != "does not fit"
    assert saved.training.activation_offload_layers == 63  # of 126: GB200's host memory is near
    assert (
        words == "activations of 63 layers of each chunk on the host assumed: without it the run does not fit"
    )
    recomputed = to_run(with_recompute(OPEN, "full"))
    assert simulate(saved).step_time_s < simulate(recomputed).step_time_s


@pytest.mark.parametrize("row", [with_recompute(OPEN, "none"), with_recompute(OPEN, "full"), STATED])
def test_what_a_row_states_stays(row: PublishedRun) -> None:
    run = to_run(row)
    assert with_unstated_savings(row, run) == (run, "")


def test_an_open_recipe_that_fits_stays() -> None:
    row = replace(STATED, recipe=replace(STATED.recipe, recompute=""))
    run = to_run(row)
    assert with_unstated_savings(row, run) == (run, "")


@pytest.mark.parametrize(
    ("name", "micro_batch", "chunks"),
    [
        ("titan-t5-1f1b", 4, 1),  # 256 sequences over 8 replicas, in 8 microbatches
        ("titan-t5-int1f1b", 4, 2),
        ("titan-t6-cp8-seq262144", 1, 1),
        ("mcore08-314b", 1, 1),
    ],
)
def test_a_layout_that_is_not_published_is_what_the_software_takes(
    name: str, micro_batch: int, chunks: int
) -> None:
    row, words = with_unstated_layout(ROWS[name])
    assert (row.layout.micro_batch_size, row.layout.vp) == (micro_batch, chunks)
    assert f"micro_batch_size {micro_batch}" in words


def test_a_stated_layout_stays() -> None:
    assert with_unstated_layout(OPEN) == (OPEN, "")
    half = replace(STATED, layout=replace(STATED.layout, micro_batch_size=None))
    assert with_unstated_layout(half) == (half, "")  # of high confidence: a fault of the table


def test_every_row_is_a_run_but_those_that_lack_a_fact() -> None:
    reasons: Counter[str] = Counter()
    for row in ROWS.values():
        try:
            reasons.update(refusals(to_run(with_unstated_layout(row)[0])))
        except NotExpressibleError as error:
            reasons[str(error)] += 1
    assert reasons == {
        "num_hidden_layers is not published": 4,
        "attention of type hybrid": 2,  # DeepSeek-V4-Flash's compressed sparse attention
        "micro_batch_size is not published": 2,  # nor the batch
    }
