"""Pairs of forwards and backwards made from any schedule."""

from __future__ import annotations

import pytest

from simulator.schedule.actions import Kind
from simulator.schedule.paired import pair_up, paired
from simulator.schedule.registry import SCHEDULES


@pytest.mark.parametrize(("p", "m", "v"), [(1, 4, 1), (2, 4, 2), (4, 8, 2), (4, 12, 3)])
def test_pairing_keeps_every_action_and_its_order(p: int, m: int, v: int) -> None:
    schedule = SCHEDULES["1f1b" if p == 1 else "interleaved-1f1b"]
    for plain, pairs in zip(schedule.order(p, m, v), paired(schedule).order(p, m, v), strict=True):
        flat = [each for action in pairs for each in (action._replace(partner=None), action.partner) if each]
        for forward in (True, False):
            kept = [a for a in flat if (a.kind is Kind.F) is forward]
            assert kept == [a for a in plain if (a.kind is Kind.F) is forward]


@pytest.mark.parametrize(("p", "m", "v"), [(1, 4, 1), (2, 4, 2), (4, 8, 2)])
def test_a_pair_holds_different_microbatches_or_stages(p: int, m: int, v: int) -> None:
    schedule = SCHEDULES["1f1b" if p == 1 else "interleaved-1f1b"]
    for order in paired(schedule).order(p, m, v):
        pairs = [action for action in order if action.partner is not None]
        assert pairs
        for forward in pairs:
            assert forward[1:3] != forward.partner[1:3]


def test_schedules_with_their_own_pairs_stay_as_they_are() -> None:
    assert paired(SCHEDULES["dualpipev"]) is SCHEDULES["dualpipev"]


def test_a_step_of_one_microbatch_has_no_pairs() -> None:
    (order,) = SCHEDULES["1f1b"].order(1, 1, 1)
    assert pair_up(order) == order
