"""The first meeting on a link is that of a search through all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import inf
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.clashes import Clashes
from simulator.engine.course import Course, Section
from simulator.engine.links import Link
from simulator.engine.messages import Pipeline
from simulator.engine.senders import Send
from simulator.engine.stretch import Walked
from simulator.engine.survey import course_of
from simulator.engine.tasks import Task
from simulator.engine.wiring import Habits, wire
from simulator.schedule.registry import SCHEDULES

P, M = 3, 3
TIMES = st.one_of(st.integers(0, 12).map(float), st.floats(0.0, 12.0))


def one_f_one_b() -> Course:
    """Whose messages arrive scattered."""
    schedule = SCHEDULES["1f1b"]
    pipeline = Pipeline(schedule.placement(P, 1), P, 1)
    habits = Habits(False, True, overlaps=True, overlaps_edges=True, gathers=True, pairs=False)
    return course_of(wire(pipeline, schedule.checked_order(P, M, 1), habits))


COURSE = one_f_one_b()
LEGS = COURSE.places.legs
Row = tuple[float, float]  # when a passage starts and ends


@dataclass
class Crossed:
    """A device, as far as clashes ask for it."""

    seconds: list[float]
    over: list[Sequence[Link]]

    def lengths(self) -> list[float]:
        return self.seconds

    def links(self) -> list[Sequence[Link]]:
        return self.over


@st.composite
def devices_over(draw: st.DrawFn, links: list[Link]) -> list[Crossed]:
    few = st.lists(st.sampled_from(links), min_size=1, max_size=2, unique_by=id)
    return [
        Crossed(
            [draw(TIMES) for _ in range(own.end)],
            [draw(few) if at >= own.gather else () for at in range(own.end)],
        )
        for own in COURSE.lengths
    ]


@st.composite
def walks(draw: st.DrawFn, devices: list[Crossed]) -> Walked:
    """Any times: nothing has to wait for anything."""
    spread = draw(st.sampled_from([st.floats(0.0, 300.0), st.integers(0, 40).map(float)]))
    walked = Walked.nothing(COURSE)
    for times in (walked.starts, walked.leaves):
        times[:] = draw(st.lists(spread, min_size=len(times), max_size=len(times)))
    for each in COURSE.passages:
        if each.is_message:
            took = devices[each.device].seconds[each.lasts]
            walked.arrives[each.numbers] = walked.leaves[each.numbers] + took
    return walked


@st.composite
def sections(draw: st.DrawFn) -> Section:
    """Devices may stand anywhere."""
    last = draw(st.integers(0, len(LEGS) - 1))
    begins, stops = [], []
    for origin, end in pairwise([*COURSE.places.origins.tolist(), len(LEGS)]):
        begins.append(origin + 1 + draw(st.integers(0, 2)))
        stops.append(max(begins[-1], origin + 1 + int((LEGS[origin + 1 : end] <= last).sum())))
    return Section(int(LEGS[begins].min()), last, np.array(begins), np.array(stops))


def passages(link: Link, devices: list[Crossed], walked: Walked, section: Section) -> list[Row]:
    """Over a link that several have in common, of steps and messages of a section."""
    users = [each for each in COURSE.passages if link in devices[each.device].over[each.lasts]]
    rows = []
    for each in users if len(users) > 1 else ():
        places = COURSE.messages.sources[each.numbers] if each.is_message else each.numbers
        begin, stop = section.begins[each.device], section.stops[each.device]
        for number in each.numbers[(begin <= places) & (places < stop)].tolist():
            start = float((walked.leaves if each.is_message else walked.starts)[number])
            rows.append((start, start + devices[each.device].seconds[each.lasts]))
    if isinstance(link.passage, Send) and len(users) > 1:
        rows.append((link.passage.start, link.passage.end))
    return rows


def first_meeting(rows: Sequence[Row], until: float) -> float:
    """When of two passages the later one begins before the earlier one ends."""
    pairs = (sorted(pair) for pair in combinations(rows, 2))
    return min((b[0] for a, b in pairs if b[0] < a[1] and b[0] < until), default=inf)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), section=sections(), until=st.sampled_from([5.0, 50.0, inf]))
def test_the_first_of_all_pairs(data: st.DataObject, section: Section, until: float) -> None:
    links = [Link(("nic", number), 1.0) for number in range(3)]
    devices = data.draw(devices_over(links))
    walked = data.draw(walks(devices))
    if data.draw(st.booleans()):  # a message has been under way before
        task = Task("send", "pp", data.draw(TIMES))
        send = Send(SimpleNamespace(rank=0, name="send"), task, "token", data.draw(TIMES))
        links[0].passage, links[0].free = send, send.end
    seconds = [each for device in devices for each in device.seconds]
    found = Clashes(COURSE, devices, seconds).first(walked, section, until)
    assert found == min(first_meeting(passages(link, devices, walked, section), until) for link in links)
