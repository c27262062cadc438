"""Accuracy on published runs may only improve. Aggregates only: no row has a number of its own."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.validation.predict import Prediction, Simulations, express
from simulator.validation.rows import shipped_rows
from simulator.validation.scores import counts, score

RECORD: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "accuracy.yaml").read_text())
MEGATRON_PAPERS = ("narayanan-2021", "korthikanti-2022")  # the default suite; the others are slow


@cache
def predictions(source: str) -> list[Prediction]:
    """The counted rows of one table of ``workloads/published``."""
    of_source = [row for row in shipped_rows() if f"/{source}.csv:" in row.where]
    accepted, _ = express(row for row in of_source if row.identity.confidence == "high")
    made, failed = Simulations(workers=1).predict(accepted)
    assert not failed
    return made


def test_megatron_papers_within_fifteen_per_cent() -> None:
    rows = [p for source in MEGATRON_PAPERS for p in predictions(source)]
    assert len(rows) == 12
    assert all(counts(p) for p in rows)
    assert score(rows).worst <= 0.15


def test_megatron_papers_median_within_eight_per_cent() -> None:
    assert score([p for source in MEGATRON_PAPERS for p in predictions(source)]).median <= 0.08


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, marks=() if source in MEGATRON_PAPERS else (pytest.mark.slow,))
        for source in RECORD["sources"]
    ],
)
def test_no_source_gets_worse(source: str) -> None:
    best, reached = RECORD["sources"][source], score(predictions(source))
    assert reached.rows >= best["rows"]
    assert reached.median <= best["median"] + RECORD["tolerance"]
    assert reached.worst <= best["worst"] + RECORD["tolerance"]
