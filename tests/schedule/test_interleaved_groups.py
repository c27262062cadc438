"""A size for the groups of interleaved 1F1B belongs to the rule of the schedule."""

import pytest

from simulator.schedule.interleaved_1f1b import grouped


@pytest.mark.parametrize(
    ("p", "m", "fits"), [(4, 16, True), (4, 7, False), (4, 18, False), (4, 12, True), (9, 16, False)]
)
def test_numbers_that_a_group_does_not_fit_are_refused_before_orders_are_made(p, m, fits):
    schedule = grouped(8)
    broken = schedule.check(p, m, 2)
    assert (broken is None) == fits
    if fits:
        assert len(schedule.checked_order(p, m, 2)) == p
    else:
        assert "microbatch group 8" in broken
