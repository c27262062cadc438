"""Every schedule runs every action once and ends, also under rendezvous; broken orders are refused."""

from __future__ import annotations

import random

import pytest

from simulator.schedule.actions import Order
from simulator.schedule.evaluate import Times, evaluate, replay
from simulator.schedule.legality import IllegalOrdersError, compile_orders, unpaired
from simulator.schedule.notation import parse_action
from simulator.schedule.registry import SCHEDULES, Schedule
from simulator.schedule.rendezvous import batched, deadlocked, planned

TIMES = Times(F=1.0, B=1.2, W=0.8, p2p=0.1)


def grid(schedule: Schedule, points: int) -> list[tuple[int, int, int]]:
    """Corners of p ≤ 16, m ≤ 64, v ≤ 8 and a fixed sample of the rest, where the schedule is defined."""
    generator = random.Random(schedule.name)
    corners = [(p, m, v) for p in (1, 2, 16) for m in (1, p, 2 * p - 1, 2 * p, 64) for v in (1, 2)]
    sample = [
        (
            generator.randint(1, 16),
            generator.randint(1, 64),
            generator.choice([1, 2, schedule.natural_v, 3, 8]),
        )
        for _ in range(points)
    ]
    return [point for point in [*corners, *sample] if schedule.check(*point) is None]


def orders(*devices: str) -> list[Order]:
    return [[parse_action(word) for word in text.split()] for text in devices]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_is_legal_and_never_deadlocks_under_rendezvous(schedule: Schedule) -> None:
    points = grid(schedule, 25)
    assert points
    for p, m, v in points:
        program = compile_orders(schedule.order(p, m, v))
        assert len(program.orders) == p
        assert replay(program, TIMES, v).makespan > 0
        if m * v <= 128:
            assert deadlocked(planned(program)) == []
            if not (schedule.default_overlap_p2p or schedule.forward_only):
                assert deadlocked(batched(program)) == []


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_stages_run_where_the_placement_says(schedule: Schedule) -> None:
    for p, m, v in grid(schedule, 5):
        placement = schedule.placement(p, v)
        for device, order in enumerate(schedule.order(p, m, v)):
            held = placement[device]
            for action in unpaired(order):
                assert action.stage in (held if schedule.directions == 1 else [held[action.direction]])


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_rule_that_is_broken_is_named_with_a_remedy(schedule: Schedule) -> None:
    broken = schedule.check(0, 4, schedule.natural_v)
    assert broken is not None
    assert schedule.name in broken
    with pytest.raises(ValueError, match="at least 1"):
        schedule.checked_order(4, 0, schedule.natural_v)


def test_batched_messages_deadlock_where_megatron_needs_single_ones() -> None:
    program = compile_orders(SCHEDULES["zb-v"].order(4, 8, 2))
    assert deadlocked(batched(program))
    assert deadlocked(planned(program)) == []


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (("0F0 0B0 0F0", "1F0 1B0"), "0F0 is there a second time"),
        (("0F0 0F999999999999", "1F0 1B0"), "forward of microbatch 1 on stage 0 is missing, of 2 stages"),
        (("0F0 0B0", "1F0 1I0"), "weight gradient of microbatch 0 on stage 1 is missing"),
        (("0F0 0F1 0B0", "1F0 1B0 1F1 1B1"), "input gradient of microbatch 1 on stage 0 is missing"),
        (("0F0 1B0", "1F0 0B0"), "stage 0 is spread over devices 0 and 1"),
        (
            ("0F0 0B0 0F1 0B1", "1F1 1B1 1F0 1B0"),
            "deadlock: device 0 before 0B0 waits for the input gradient of",
        ),
        (("0F0 0B0", "1B0 1F0"), "device 1 before 1B0 waits for the forward of microbatch 0 on stage 1"),
        (("0F0 0W0 0I0", "1F0 1B0"), "deadlock: device 0 before 0W0"),
    ],
)
def test_illegal_orders_are_refused(devices: tuple[str, ...], message: str) -> None:
    with pytest.raises(IllegalOrdersError, match=message):
        evaluate(orders(*devices), Times(F=1, B=1, W=1))


def test_messages_take_time_between_devices_only() -> None:
    timeline = evaluate(orders("0F0 0B0", "1F0 1B0"), Times(F=1, B=1, W=1, p2p=0.5))
    assert timeline.makespan == 1 + 0.5 + 1 + 2 + 0.5 + 2
    turn = evaluate(orders("0F0 3F0 3B0 0B0", "1F0 2F0 2B0 1B0"), Times(F=2, B=2, W=2, p2p=0.5), v=2)
    assert turn.makespan == 4 * 1 + 4 * 2 + 4 * 0.5


def test_a_pair_takes_the_fourth_time_and_releases_both_outputs_at_its_end() -> None:
    both = evaluate(orders("0F0 (0F1;0B0) 0B1"), Times(F=1, B=1, W=1, pair=2.5))
    assert both.end == [[1.0, 3.5, 5.5]]
    apart = evaluate(orders("0F0 (0F1;0B0) 0B1"), Times(F=1, B=1, W=1), joint=False)
    assert apart.end == [[1.0, 2.0, 4.0, 6.0]]
