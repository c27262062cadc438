"""Ends that may be revised are taken in order of time with SimPy's events."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import simpy

from simulator.engine.agenda import Agenda, Ending


@dataclass
class Noting:
    """Writes down when it has ended."""

    name: str
    log: list[tuple[str, float]]
    version: int = 0

    def fire(self, at: float) -> None:
        self.log.append((self.name, at))


def test_ends_and_events_are_taken_in_order_of_time() -> None:
    agenda, log = Agenda(simpy.Environment()), []

    def process() -> Generator[simpy.Event, object, None]:
        for _ in range(2):
            yield agenda.env.timeout(2.0)
            log.append(("process", agenda.env.now))

    agenda.env.process(process())
    for at in (5.0, 1.0, 3.0):
        agenda.push(at, Noting("end", log))
    agenda.run()
    assert log == [("end", 1.0), ("process", 2.0), ("end", 3.0), ("process", 4.0), ("end", 5.0)]


def test_an_end_that_is_revised_comes_once() -> None:
    agenda, log = Agenda(simpy.Environment()), []
    owner = Noting("end", log)
    agenda.push(1.0, owner)
    owner.version += 1
    agenda.push(2.0, owner)
    agenda.run()
    assert log == [("end", 2.0)]


def test_who_waits_for_an_ending_goes_on_when_it_has_moved_to() -> None:
    agenda, log = Agenda(simpy.Environment()), []
    ending = Ending(agenda.env)

    def process() -> Generator[simpy.Event, object, None]:
        found = yield ending
        log.append((found, agenda.env.now))

    agenda.env.process(process())
    agenda.env.step()  # it waits
    ending.happen(1.0, "message")
    ending.moved(3.0, "message").moved(2.0, "message")
    agenda.run()
    assert log == [("message", 2.0)]


def test_a_shortcut_is_asked_where_no_process_has_an_event_to_come_and_as_often_as_it_says() -> None:
    agenda, log = Agenda(simpy.Environment()), []

    class Resting:
        def sets_out(self) -> int:
            log.append(("asked", 0.0))
            return 2

    agenda.env.timeout(1.5)
    agenda.shortcut = Resting()
    for at in (1.0, 2.0, 3.0, 4.0):
        agenda.push(at, Noting("end", log))
    agenda.run()
    assert [name for name, _ in log] == ["end", "asked", "end", "end", "asked", "end"]
