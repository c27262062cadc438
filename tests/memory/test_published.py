"""Peaks that were measured, and runs that ran."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from simulator.memory.report import RELATIVE_ERROR, MemoryReport
from simulator.simulate import simulate_memory
from simulator.spec.run import RunSpec
from simulator.validation.predict import anonymous
from simulator.validation.published import PublishedRun
from simulator.validation.row_to_run import NotExpressibleError, refusals, to_run
from simulator.validation.rows import shipped_rows
from simulator.validation.unstated import with_unstated_savings

Judged = tuple[PublishedRun, RunSpec]


@cache
def runs() -> list[Judged]:
    """Of every row that can be said as a run."""
    found = []
    for row in shipped_rows():
        try:
            run = to_run(row)
        except NotExpressibleError:
            continue
        if not refusals(run):
            found.append((row, anonymous(run)))
    return found


@cache
def report(run_text: str) -> MemoryReport:
    """Of the run that reads so: equal runs once."""
    return simulate_memory(next(run for _, run in runs() if repr(run) == run_text))


def errors(basis: str) -> np.ndarray:
    return np.array(
        [
            getattr(report(repr(run)), f"{basis}_bytes") / row.measured.peak_memory_bytes - 1
            for row, run in runs()
            if row.measured.peak_memory_bytes and row.measured.memory_basis == basis
        ]
    )


@pytest.mark.parametrize(("basis", "least", "median"), [("allocated", 30, 0.015), ("reserved", 10, 0.06)])
def test_measured_peaks(basis: str, least: int, median: float) -> None:
    found = np.abs(errors(basis))
    assert len(found) >= least
    assert np.median(found) <= median
    assert found.max() <= (0.05 if basis == "allocated" else RELATIVE_ERROR)


IMPOSSIBLE = {
    # as printed (TP 1, PP 1, ZeRO-1) weights and gradients in bf16 alone, 4 bytes each of 70.55B, are 282 GB
    "mbridge-26.02.01-llama3-70b-gb300-nvfp4-64g-gbs256-pretrain",
}


def test_runs_that_ran_are_not_judged_impossible() -> None:
    """Of equal settings on several numbers of GPUs the fewest, where shards are largest."""
    hardest: dict[str, Judged] = {}
    for row, run in runs():
        alike = replace(run.training, global_batch_size=1), replace(run.parallelism, dp=0)
        key = repr((run.model, run.cluster.device.name, *alike))
        if key not in hardest or run.gpus < hardest[key][1].gpus:
            hardest[key] = row, run
    wrong = {
        row.run_id
        for row, run in hardest.values()
        if simulate_memory(with_unstated_savings(row, run)[0]).verdict == "does not fit"
    }
    assert len(hardest) > 200
    assert wrong == IMPOSSIBLE
