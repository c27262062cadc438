"""Scores, the baseline, the choice of layout and the JSON form, on made-up predictions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.validation.baseline import constant_hfu_errors
from simulator.validation.predict import Prediction, Refused
from simulator.validation.ranking import choices
from simulator.validation.report import Validation, memory_errors
from simulator.validation.rows import parse_rows
from simulator.validation.scores import score, weighted_quantile

COLUMNS = (
    "run_id,group,collection,confidence,source,hardware,gpus,model,seq_length,tp,precision,"
    "peak_memory_bytes,memory_basis\n"
)


def prediction(
    measured: float,
    predicted: float,
    *,
    group: str = "g",
    name: str = "",
    tp: int = 1,
    confidence: str = "high",
) -> Prediction:
    cells = (
        f"{name or f'{group}-{measured}-{tp}'},{group},c,{confidence},s,d,8,m,1024,{tp},bf16,8e9,allocated\n"
    )
    [row] = parse_rows(COLUMNS + cells, "t.csv")
    return Prediction(
        row=row,
        measured_s=measured,
        predicted_s=predicted,
        interval_s=(0.9 * predicted, 1.1 * predicted),
        peak_memory_bytes=6e9,
        device="d",
        hardware_flops=1e15,
        peak_flops=8e15,
        breakdown_s={"gemm": predicted},
    )


def test_a_score_by_hand() -> None:
    s = score([prediction(1.0, 1.02), prediction(2.0, 1.8), prediction(4.0, 6.0)])
    assert (s.rows, s.groups) == (3, 1)
    assert [s.median, s.bias, s.worst] == pytest.approx([0.10, 0.02, 0.5])
    assert s.mean == pytest.approx((0.02 + 0.10 + 0.5) / 3)
    assert s.coverage == pytest.approx(1 / 3)
    assert s.width == pytest.approx(0.2)


def test_a_large_group_has_one_vote() -> None:
    crowd = [prediction(1.0 + i, (1.0 + i) * 1.5, group="crowd") for i in range(9)]
    rows = [*crowd, prediction(1.0, 1.1, group="alone")]
    assert score(rows).mean == pytest.approx(0.46)
    assert score(rows, by_group=True).mean == pytest.approx(0.30)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_with_equal_weights_the_median_is_the_usual_one(values: list[float], weight: float) -> None:
    weights = np.full(len(values), weight + 0.1)
    assert weighted_quantile(np.array(values), weights, 0.5) == pytest.approx(float(np.median(values)))


def test_the_baseline_gives_everyone_the_same_utilisation() -> None:
    rows = [prediction(1.0, 1.0, group="a"), prediction(2.0, 2.0, group="b")]
    in_sample = constant_hfu_errors(rows)
    hfu = (1 / 8 + 1 / 16) / 2  # the median of two
    assert list(in_sample.values()) == pytest.approx([(1 / 8) / hfu - 1, (1 / 16) / hfu - 1])
    left_out = constant_hfu_errors(rows, leave_out_group=True)
    assert list(left_out.values()) == pytest.approx([2 - 1, 0.5 - 1])
    assert constant_hfu_errors(rows[:1], leave_out_group=True) == {}


def test_the_loss_of_a_choice_is_measured_time() -> None:
    rows = [prediction(1.0, 3.0, tp=1), prediction(1.2, 2.0, tp=2)]
    [choice] = choices(rows)
    assert choice.loss == pytest.approx(0.2)
    assert not choice.good
    assert choices(rows[:1]) == []
    assert choices([rows[0], replace(rows[0])]) == []  # twice the same layout is no choice


def test_the_json_form_keeps_its_keys() -> None:
    rows = [prediction(1.0, 1.05), prediction(2.0, 2.5, group="h"), prediction(1.0, 9.0, confidence="low")]
    refused = [Refused(row=rows[0].row, reasons=("a", "b"))]
    found = Validation(protocol="shipped", predictions=rows, refused=refused)
    document = json.loads(json.dumps(found.to_dict()))
    assert {"rows", "groups", "overall", "cells", "not_predicted", "protocol"} <= document.keys()
    assert document["overall"]["all"]["per_row"]["rows"] == 2
    assert document["overall"]["medium_and_low_confidence"]["per_row"]["rows"] == 1
    assert [group["group"] for group in document["groups"]] == ["g", "h"]
    first = document["rows"][0]
    assert (first["run_id"], first["group"], first["measured"], first["predicted"]) == (
        "g-1.0-1",
        "g",
        1.0,
        1.05,
    )
    assert first["error"] == pytest.approx(0.05)
    assert first["interval"] == pytest.approx([0.945, 1.155])
    assert first["inside"] is True
    assert first["predicted_peak_memory_bytes"] == 6e9
    assert found.reasons() == {"a": 1, "b": 1}


def test_memory_is_compared_with_what_was_allocated() -> None:
    rows = [prediction(1.0, 1.0)]
    assert memory_errors(rows, "allocated") == pytest.approx([-0.25])
    assert memory_errors(rows, "reserved") == []
