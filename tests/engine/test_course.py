"""The course through the steps of all devices: what each waits for lies before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.engine.course import NOWHERE
from simulator.engine.messages import Pipeline
from simulator.engine.survey import Wiring
from simulator.engine.wiring import Habits, wire
from simulator.schedule.registry import SCHEDULES


def wired(name: str, p: int, m: int, *, blocking: bool = False, gathers: bool = False) -> Wiring:
    schedule = SCHEDULES[name]
    v = 2 if schedule.natural_v > 1 else 1
    orders = schedule.checked_order(p, m, v)
    stages = 1 + max(action.stage for order in orders for action in order)
    pipeline = Pipeline(schedule.placement(p, v), stages, schedule.directions)
    habits = Habits(blocking, True, not blocking, False, gathers, pairs=False)
    return Wiring(wire(pipeline, orders, habits))


@pytest.mark.parametrize("gathers", [False, True])
@pytest.mark.parametrize("name", [name for name, schedule in SCHEDULES.items() if schedule.synchronous])
def test_each_step_comes_once_behind_what_it_waits_for(name: str, gathers: bool) -> None:
    wiring = wired(name, 4, 8, gathers=gathers)
    course = wiring.course
    steps = {
        int(origin) + 1 + at: step
        for origin, device in zip(course.places.origins, wiring.devices, strict=True)
        for at, step in enumerate(device.steps)
    }
    assert sorted(leg.place for leg in course.legs) == sorted(steps)
    behind: set[int] = set()
    sent = set()
    for leg in course.legs:
        step = steps[leg.place]
        assert leg.place - 1 in behind or leg.place - 1 in course.places.origins
        assert sent.issuperset(step.waits)
        assert [course.messages.tokens[message] for message in leg.waits] == list(step.waits)
        behind.add(leg.place)
        sent.update(message.token for message in step.sends)


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_both_sides_of_an_exchange_are_one_leg(name: str) -> None:
    wiring = wired(name, 4, 8, blocking=True)
    course = wiring.course
    met = [(leg.place, leg.meets[0]) for leg in course.legs if leg.meets is not None]
    assert 2 * len(met) == sum(step.exchange is not None for own in wiring.devices for step in own.steps)
    assert len(course.legs) + len(met) == len(wiring)

    def key(place: int) -> object:
        device = int(course.places.devices[place])
        exchange = wiring.devices[device].steps[place - int(course.places.origins[device]) - 1].exchange
        assert exchange is not None
        return exchange.key

    assert all(key(one) == key(other) for one, other in met)
    assert all(course.places.legs[one] == course.places.legs[other] for one, other in met)


def test_steps_that_wait_in_vain_are_left_out() -> None:
    first, second = wired("1f1b", 2, 4).devices
    gradients = tuple(sent.token for step in second.steps for sent in step.sends)
    stuck = replace(first, steps=(first.steps[0]._replace(waits=gradients[:1]), *first.steps[1:]))
    course = Wiring((stuck, second)).course
    assert not course.legs
    assert (course.places.legs == NOWHERE).all()
