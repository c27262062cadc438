"""TorchTitan's tables 2 and 6: sequences and the ranks that share them doubled together."""

from __future__ import annotations

import pytest

from simulator.simulate import simulate
from simulator.validation.row_to_run import to_run
from simulator.validation.rows import shipped_rows
from simulator.validation.unstated import with_unstated_layout


@pytest.fixture(scope="module")
def tokens_per_s() -> dict[int, tuple[float, float]]:
    """By CP size: predicted and published tokens/s per GPU."""
    rows = [row for row in shipped_rows() if row.run_id.startswith("titan-t2-")]
    return {
        row.layout.cp or 1: (
            simulate(to_run(row)).tokens_per_s_per_gpu,
            row.measured.tokens_per_s_per_gpu or 0.0,
        )
        for row in rows
    }


def test_throughput_falls_with_the_attention_over_more_keys(
    tokens_per_s: dict[int, tuple[float, float]],
) -> None:
    for index in (0, 1):
        values = [tokens_per_s[cp][index] for cp in (1, 2, 4, 8)]
        assert values == sorted(values, reverse=True)
        assert values[0] > 3 * values[3]


def test_the_first_doubling_costs_what_was_measured(tokens_per_s: dict[int, tuple[float, float]]) -> None:
    predicted, measured = (tokens_per_s[2][i] / tokens_per_s[1][i] for i in (0, 1))
    assert predicted == pytest.approx(measured, rel=0.1)


def test_sequences_over_nodes_cost_what_was_measured() -> None:
    """TorchTitan's table 6, Llama 3.1 405B on 512 H100: 54, 87, 132 and 256 s, printed to 1 to 3 %.

    TP takes the node, so keys and values of every query head, and fp32 gradients, cross the network.
    """
    rows = [with_unstated_layout(row)[0] for row in shipped_rows() if row.run_id.startswith("titan-t6-")]
    measured = [row.measured.step_time_s or 0.0 for row in rows]
    predicted = [simulate(to_run(row)).step_time_s for row in rows]
    assert [row.layout.cp for row in rows] == [1, 2, 4, 8]
    assert predicted == pytest.approx(measured, rel=0.1)
