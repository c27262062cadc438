"""The longest path of a schedule whose stages take times of their own."""

import pytest

from simulator.schedule.evaluate import Times, evaluate
from simulator.schedule.registry import SCHEDULES
from simulator.sweep.longest_path import MOST_ACTIONS, walk

F, B, HOP = 2.0, 5.0, 0.25


def links(p, v):
    return tuple(stage % p for stage in range(p * v - 1)) if p > 1 else (1,) * (v - 1)


def seconds(name, p, m, v, forwards, backwards):
    found = walk(SCHEDULES[name], p, v, m, links(p, v))
    return found.seconds([*forwards, *backwards], [*[HOP] * p, 0.0])


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 8), (4, 4), (4, 16)])
def test_1f1b_takes_a_round_for_every_microbatch_and_stage(p, m):
    found = walk(SCHEDULES["1f1b"], p, 1, m, links(p, 1)).seconds([F] * p + [B] * p, [0.0] * (p + 1))
    assert found == pytest.approx((m + p - 1) * (F + B))


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved-1f1b", "looped-bfs"])
def test_with_equal_stages_it_is_that_of_the_schedule_itself(name):
    p, m, v = 4, 8, 1 if name in ("gpipe", "1f1b") else 3
    orders = SCHEDULES[name].order(p, m, v)
    times = Times(F=v * F, B=v * (B - 1.0), W=v * 1.0, p2p=HOP)
    expected = evaluate(orders, times, v).end[0][-1]
    assert seconds(name, p, m, v, [F] * (p * v), [B] * (p * v)) == pytest.approx(expected)


def test_a_slow_stage_sets_the_pace():
    forwards, backwards = [F, F, 10.0, F], [B, B, 20.0, B]
    found = seconds("1f1b", 4, 32, 1, forwards, backwards)
    assert 32 * 30.0 < found < 33 * 30.0 + 3 * (F + B) + 6 * HOP


def test_very_long_schedules_are_left_alone():
    assert walk(SCHEDULES["1f1b"], 8, 1, MOST_ACTIONS, links(8, 1)) is None
