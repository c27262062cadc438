"""The automatic schedule fits, is never worse than a registered one that fits, and nears the optimum."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from simulator.schedule.automatic import search
from simulator.schedule.evaluate import Times, evaluate, peak_live
from simulator.schedule.registry import SCHEDULES

time = st.floats(0.2, 3.0)


@settings(max_examples=20, deadline=None)
@given(
    p=st.integers(1, 4),
    m=st.integers(1, 8),
    memory=st.integers(1, 8),
    F=time,
    B=time,
    W=time,
    p2p=st.sampled_from([0.0, 0.1]),
)
def test_it_fits_and_is_never_worse_than_a_registered_schedule_that_fits(
    p: int, m: int, memory: int, F: float, B: float, W: float, p2p: float
) -> None:
    times = Times(F=F, B=B, W=W, p2p=p2p)
    found = search(p, m, times, memory)
    assert max(peak_live(found.orders)) <= memory * found.v
    for schedule in SCHEDULES.values():
        if not schedule.synchronous or schedule.forward_only or schedule.directions > 1:
            continue
        for v in (1, 2):
            if (
                schedule.check(p, m, v) is None
                and max(peak_live(orders := schedule.order(p, m, v))) <= memory * v
            ):
                assert found.timeline.makespan <= evaluate(orders, times, v).makespan * (1 + 1e-9)


def test_more_memory_never_makes_a_longer_step() -> None:
    times = Times(F=1.0, B=1.2, W=0.7, p2p=0.1)
    steps = [search(3, 8, times, memory).timeline.makespan for memory in (1, 2, 3, 6)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0]


def test_times_that_no_fixed_order_suits_gain_from_the_search() -> None:
    found = search(4, 12, Times(F=1.0, B=1.5, W=0.5, p2p=0.2), 8)
    assert found.name == "greedy"


@pytest.mark.parametrize(
    ("p", "memory", "bubble"), [(4, 2, 5.5), (4, 3, 2.5), (4, 4, 1.5), (8, 4, 13.5), (8, 8, 3.5)]
)
def test_equal_times_reach_v_min_v_half_and_zb_v(p: int, memory: int, bubble: float) -> None:
    """Bubbles of the authors' schedules, in F, with m = 2p (Qi et al. 2024b)."""
    found = search(p, 2 * p, Times(F=1, B=1, W=1), memory)
    assert found.timeline.bubble <= bubble + 1e-9


# Qi et al. 2024: profiled times and theoretical bubble rates of ZB-1p and ZB-2p
PUBLISHED = [  # p, m, F, B, W, p2p, heads·sequence/hidden, ZB-1p, ZB-2p
    (8, 24, 18.522, 18.086, 9.337, 0.601, 24 * 1024 / 2304, 0.1585, 0.0433),
    (8, 32, 18.513, 18.086, 9.331, 0.626, 24 * 1024 / 2304, 0.1242, 0.0039),
    (8, 24, 29.718, 29.444, 19.927, 0.527, 32 * 1024 / 4096, 0.1323, 0.0029),
]


@pytest.mark.parametrize(("p", "m", "F", "B", "W", "p2p", "attention", "zb_1p", "zb_2p"), PUBLISHED)
def test_bubble_rates_reach_those_of_qi_et_al(
    p: int, m: int, F: float, B: float, W: float, p2p: float, attention: float, zb_1p: float, zb_2p: float
) -> None:
    times = Times(F=F, B=B, W=W, p2p=p2p)
    kept = 32 / (34 + 5 * attention)  # their M_W / M_B, section 4.1
    for memory, published in ((p, zb_1p), (2 * p, zb_2p)):
        found = search(p, m, times, memory, kept_for_weight=kept, chunks=(1,), interlocking=True).timeline
        assert found.span_bubble / (found.work + found.span_bubble) <= published + 0.003


def test_the_leanest_need_is_named_when_nothing_fits() -> None:
    with pytest.raises(ValueError, match="the leanest needs"):
        search(4, 8, Times(F=1, B=1, W=1), 0.5, chunks=(1,))


def test_one_limit_per_device() -> None:
    limits = [5, 3, 3, 2]
    found = search(4, 8, Times(F=1, B=1, W=1), limits, chunks=(1,))
    assert all(peak <= limit for peak, limit in zip(peak_live(found.orders), limits, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("F", "B", "W", "p2p"), [(1, 1, 1, 0), (1.0, 1.3, 0.6, 0.2), (1.0, 0.9, 1.4, 0.1)])
@pytest.mark.parametrize("memory", [2, 3])
def test_it_is_close_to_the_optimum_of_small_cases(
    F: float, B: float, W: float, p2p: float, memory: int
) -> None:
    times = Times(F=F, B=B, W=W, p2p=p2p)
    optimum = optimal_makespan(3, 4, times, memory)
    found = search(3, 4, times, memory, chunks=(1,)).timeline.makespan
    assert optimum - 1e-6 <= found <= 1.05 * optimum


def optimal_makespan(p: int, m: int, times: Times, memory: int) -> float:
    """Qi et al. 2024's integer program for one stage per device: order every two actions of a device.

    Microbatches run in turn, so that only actions of different kinds need a binary (1: the first runs first).
    """
    kinds = "FIW"
    duration = dict(zip(kinds, (times.F, times.B, times.W), strict=True))
    actions = [(d, kind, k) for d in range(p) for kind in kinds for k in range(m)]
    pairs = [(a, b) for a, b in combinations(actions, 2) if a[0] == b[0] and a[1] != b[1]]
    column = {name: i for i, name in enumerate([*actions, *pairs, "makespan"])}
    horizon = m * p * (sum(duration.values()) + 2 * times.p2p)
    rows: list[tuple[dict[object, float], float]] = []  # Σ coefficient·variable ≥ bound

    def after(later: object, earlier: object, delay: float) -> None:
        rows.append(({later: 1.0, earlier: -1.0}, delay))

    for d, kind, k in actions:
        end = duration[kind]
        rows.append(({"makespan": 1.0, (d, kind, k): -1.0}, end))
        if k + 1 < m:
            after((d, kind, k + 1), (d, kind, k), end)
        if kind == "F":
            after((d, "I", k), (d, "F", k), end)
            if d + 1 < p:
                after((d + 1, "F", k), (d, "F", k), end + times.p2p)
        if kind == "I":
            after((d, "W", k), (d, "I", k), end)
            if d:
                after((d - 1, "I", k), (d, "I", k), end + times.p2p)
    for a, b in pairs:
        rows.append(({b: 1.0, a: -1.0, (a, b): -horizon}, duration[a[1]] - horizon))
        rows.append(({a: 1.0, b: -1.0, (a, b): horizon}, duration[b[1]]))
    for d in range(p):
        for k in range(m):  # at F k: k + 1 forwards started, less the W before it, at most memory
            before = [((d, "F", k), (d, "W", j)) for j in range(m)]
            rows.append((dict.fromkeys(before, -1.0), k + 1 - memory - m))
    matrix = np.zeros((len(rows), len(column)))
    for row, (coefficients, _) in enumerate(rows):
        for name, value in coefficients.items():
            matrix[row, column[name]] = value
    cost = np.zeros(len(column))
    cost[column["makespan"]] = 1.0
    binary = np.array([name in pairs for name in column])
    result = milp(
        cost,
        constraints=LinearConstraint(matrix, lb=np.array([bound for _, bound in rows])),
        integrality=binary.astype(int),
        bounds=Bounds(0, np.where(binary, 1.0, horizon)),
    )
    assert result.success, result.message
    return float(result.fun)
