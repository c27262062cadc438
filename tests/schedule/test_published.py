"""Published bubble rates and directions of the zero-bubble papers and of Megatron."""

from __future__ import annotations

import pytest

from simulator.schedule.assessment import Assessment, assess
from simulator.schedule.evaluate import Times, evaluate, peak_live
from simulator.schedule.interleaved_1f1b import group_size, order
from simulator.schedule.registry import SCHEDULES

# Qi et al. 2024 (arXiv 2401.10241): profiled F, B, W and message times in ms, and the theoretical bubble
# rates they print for 1F1B, ZB-H1 and ZB-H2: the bubble's share of the step, where steps interlock.
QI_2024 = [  # p, m, times, 1F1B, ZB-H1, ZB-H2
    (8, 24, Times(F=18.522, B=18.086, W=9.337, p2p=0.601), 0.2431, 0.1585, 0.1083),
    (8, 32, Times(F=18.513, B=18.086, W=9.331, p2p=0.626), 0.1985, 0.1242, 0.0837),
    (8, 64, Times(F=18.546, B=18.097, W=9.321, p2p=0.762), 0.1240, 0.0674, 0.0444),
    (8, 24, Times(F=29.718, B=29.444, W=19.927, p2p=0.527), 0.2347, 0.1323, 0.0698),
    (16, 48, Times(F=11.347, B=11.248, W=8.132, p2p=0.377), 0.2552, 0.1397, 0.0672),
    (32, 96, Times(F=10.419, B=10.207, W=7.715, p2p=0.408), 0.2646, 0.1421, 0.0641),
]


def span_bubble_rate(found: Assessment) -> float:
    return found.timeline.span_bubble / (found.timeline.work + found.timeline.span_bubble)


@pytest.mark.parametrize(("p", "m", "times", "one_f_one_b", "zb_h1", "zb_h2"), QI_2024)
def test_bubble_rates_equal_the_printed_ones(
    p: int, m: int, times: Times, one_f_one_b: float, zb_h1: float, zb_h2: float
) -> None:
    printed = {"1f1b": one_f_one_b, "zb-h1": zb_h1, "zb-h2": zb_h2}
    for name, rate in printed.items():
        assert span_bubble_rate(assess(SCHEDULES[name], p, m, 1, times)) == pytest.approx(rate, abs=6e-5)


@pytest.mark.parametrize(("p", "m", "times"), [row[:3] for row in QI_2024])
def test_zero_bubble_gains_over_1f1b_at_equal_and_at_twice_the_memory(p: int, m: int, times: Times) -> None:
    step = {name: assess(SCHEDULES[name], p, m, 1, times) for name in ("1f1b", "zb-h1", "zb-h2")}
    equal_memory = step["1f1b"].step_time / step["zb-h1"].step_time - 1
    more_memory = (
        step["1f1b"].step_time / (step["zb-h2"].timeline.work + step["zb-h2"].timeline.span_bubble) - 1
    )
    assert max(step["zb-h1"].peak_activations) == max(step["1f1b"].peak_activations)
    assert 0.05 < equal_memory < 0.23
    assert equal_memory < more_memory < 0.31


def test_interleaving_divides_the_bubble_and_costs_memory() -> None:
    times = Times(F=1, B=1, W=1)
    plain, interleaved = (
        assess(SCHEDULES[name], 8, 16, v, times) for name, v in (("1f1b", 1), ("interleaved-1f1b", 4))
    )
    assert interleaved.bubble == pytest.approx(plain.bubble / 4)
    assert max(interleaved.peak_activations) / 4 == pytest.approx(8 * (1 + 7 / (8 * 4)))
    assert max(plain.peak_activations) == 8


def test_megatron_groups_larger_than_p_keep_the_bubble_and_cost_memory() -> None:
    p, m, v, g = 4, 16, 3, 8
    default, grouped = order(p, m, v), order(p, m, v, group=g)
    times = Times(F=1, B=1, W=1)
    assert evaluate(grouped, times, v).bubble == pytest.approx(evaluate(default, times, v).bubble)
    assert peak_live(grouped) == [2 * (p - i - 1) + (v - 1) * g + 1 for i in range(p)]


def test_overlapped_all_to_alls_need_one_more_forward_first() -> None:
    p, m, v = 4, 8, 2
    more = peak_live(order(p, m, v, extra_warm_up=1))
    assert more == [peak + 1 for peak in peak_live(order(p, m, v))]


@pytest.mark.parametrize(
    ("p", "m", "g"), [(4, 8, 4), (4, 10, 5), (4, 11, 6), (4, 15, 5), (4, 23, 6), (8, 3, 3)]
)
def test_groups_are_the_smallest_megatron_accepts(p: int, m: int, g: int) -> None:
    assert group_size(p, m) == g


@pytest.mark.parametrize("group", [3, 6, 17])
def test_groups_megatron_refuses_are_refused(group: int) -> None:
    with pytest.raises(ValueError, match="the smallest that fits is 4"):
        order(4, 8, 2, group=group)
