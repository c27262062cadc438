"""Compute beside collectives that hold some of its processors."""

from __future__ import annotations

import pytest

from simulator.engine.attribution import breakdown
from simulator.engine.replay import replay
from simulator.engine.tasks import Task


def run(
    compute: Task, *collectives: tuple[float, float], holds: float = 0.25
) -> tuple[float, dict[str, float]]:
    """End and breakdown of one compute task beside collectives given as (start, seconds)."""
    beside, clock = [], 0.0
    for start, seconds in collectives:
        beside.append(Task("idle", "idle", start - clock))
        beside.append(Task("reduce", "exposed_dp", seconds, holds=holds))
        clock = start + seconds
    result = replay({0: {"compute": [compute], "dp": beside}})
    records = result.stream(0, "compute")
    return records[0].end, breakdown(records, records[0].end, "other")


def test_a_product_works_at_the_rate_of_the_processors_left() -> None:
    end, spent = run(Task("product", "gemm", 3.0), (0.0, 10.0))
    assert end == pytest.approx(3.0 / 0.75)
    assert spent == pytest.approx({"gemm": 3.0, "exposed_dp": 1.0})


def test_only_the_time_beside_a_collective_is_slow() -> None:
    # 1 s alone, 2 s of clock beside it (1.5 s of work), then 0.5 s alone
    assert run(Task("product", "gemm", 3.0), (1.0, 2.0))[0] == pytest.approx(3.5)


def test_collectives_that_come_and_go_add_up() -> None:
    assert run(Task("product", "gemm", 3.0), (0.0, 1.0), (2.0, 1.0))[0] == pytest.approx(3.5)


def test_a_collective_that_begins_in_the_extra_time_slows_it_too() -> None:
    # by 3.0 a quarter of 2 s has been lost; of the 0.5 s left, what runs after 3.2 runs at 3/4
    end, _ = run(Task("product", "gemm", 3.0), (0.0, 2.0), (3.2, 5.0))
    assert end == pytest.approx(3.2 + 0.3 / 0.75)


def test_work_bound_by_memory_does_not_slow_down() -> None:
    assert run(Task("norm", "norm", 3.0), (0.0, 10.0))[0] == 3.0


def test_a_block_slows_down_by_its_share_of_bound_work() -> None:
    block = Task("block", "compute", 4.0, profile={"gemm": 1.0, "attention": 1.0, "exposed_tp": 2.0})
    assert run(block, (0.0, 10.0))[0] == pytest.approx(4.0 / (1 - 0.25 * 0.5))


def test_without_collectives_a_task_takes_exactly_its_time() -> None:
    assert run(Task("product", "gemm", 0.1))[0] == 0.1
