"""A run that ran did fit: what a row leaves open is chosen so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.simulate import simulate, simulate_memory
from simulator.validation.published import PublishedRun
from simulator.validation.row_to_run import to_run
from simulator.validation.rows import shipped_rows
from simulator.validation.unstated import with_unstated_savings

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
