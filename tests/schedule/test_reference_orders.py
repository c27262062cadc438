"""Orders and figures equal those of PyTorch, Qi et al. and DeepSeek, action for action."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.schedule.evaluate import Times, evaluate, peak_before_input_grad, peak_live
from simulator.schedule.notation import format_action
from simulator.schedule.registry import SCHEDULES

OURS = Path(__file__).parent / "data" / "orders.json"
WHOLE_GRID = Path(__file__).parents[3] / "shared" / "reference" / "schedules" / "orders.json"
NAMES = {
    "GPipe": "gpipe",
    "1F1B": "1f1b",
    "LoopedBFS": "looped-bfs",
    "Interleaved1F1B": "interleaved-1f1b",
    "InterleavedZeroBubble": "interleaved-zb",
    "ZBVZeroBubble": "zb-v",
    "DualPipeV": "dualpipev",
    "ZB-H1": "zb-h1",
    "ZB-H2": "zb-h2",
    "DualPipe": "dualpipe",
}


def check(name: str, row: dict[str, Any]) -> None:
    p, m, v = row["p"], row["m"], row["v"]
    orders = SCHEDULES[name].checked_order(p, m, v)
    assert [" ".join(map(format_action, order)) for order in orders] == row["order"]
    assert peak_live(orders) == row["peak_live"]
    assert peak_before_input_grad(orders) == row["peak_before_input_grad"]
    for figures in row["figures"]:
        times = Times(F=figures["F"], B=figures["B"], W=figures["W"])
        timeline = evaluate(orders, times, v, joint=figures.get("pair") != "serial")
        assert timeline.makespan == pytest.approx(figures["makespan"], rel=1e-9)
        assert timeline.bubble == pytest.approx(figures["bubble"], rel=1e-9, abs=1e-9)
        assert timeline.span_bubble == pytest.approx(figures["span_bubble"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", NAMES.values())
def test_orders_and_figures_equal_the_reference(name: str) -> None:
    rows = json.loads(OURS.read_text())["schedules"][name]
    assert rows
    for row in rows:
        check(name, row)


@pytest.mark.skipif(not WHOLE_GRID.exists(), reason="the whole reference grid is not kept in the project")
@pytest.mark.parametrize("name", NAMES)
def test_orders_and_figures_equal_the_whole_reference_grid(name: str) -> None:
    reference = json.loads(WHOLE_GRID.read_text())
    for row in (reference["schedules"] | reference["not_pytorch"])[name]:
        check(NAMES[name], row)
