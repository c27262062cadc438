"""Whether passages met on a link, looked up for thousands of them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from simulator.engine.course import Course, Mask, Numbers, Passages, Section, Times
from simulator.engine.links import Link
from simulator.engine.quiet import QuietDevice
from simulator.engine.senders import Send
from simulator.engine.stretch import Walked


class _Rows(NamedTuple):
    """Messages by number or steps by place, once for every link that they cross, by their ``legs``."""

    numbers: Numbers
    seconds: Times
    links: Numbers
    legs: Numbers

    @classmethod
    def of(cls, found: Sequence[tuple[Passages, float, int]], legs: Numbers) -> _Rows:
        """Passages of so many seconds, each over a link. ``legs``: by number."""
        numbers = np.concatenate([np.empty(0, dtype=np.intp), *(each.numbers for each, _, _ in found)])
        sizes = [len(each.numbers) for each, _, _ in found]
        seconds = np.repeat(np.array([seconds for _, seconds, _ in found], dtype=np.float64), sizes)
        links = np.repeat(np.array([link for _, _, link in found], dtype=np.intp), sizes)
        order = np.argsort(legs[numbers], kind="stable")
        return cls(numbers, seconds, links, legs[numbers]).at(order)

    def within(self, section: Section) -> _Rows:
        """Those whose leg lies between the first and the last of a section."""
        return self.at(slice(*np.searchsorted(self.legs, (section.first, section.last + 1))))

    def at(self, rows: slice | Numbers | Mask) -> _Rows:
        """Some of them."""
        return _Rows(self.numbers[rows], self.seconds[rows], self.links[rows], self.legs[rows])


class Clashes:
    """Who crosses which link. One that a single stream crosses is left out: it does one thing at a time."""

    def __init__(self, course: Course, devices: Sequence[QuietDevice]) -> None:
        crossed = [(device.lengths(), device.links()) for device in devices]
        users: defaultdict[int, list[tuple[Passages, float]]] = defaultdict(list)
        links: dict[int, Link] = {}
        for each in course.passages:
            seconds, by_length = crossed[each.device]
            for link in by_length[each.lasts]:
                users[id(link)].append((each, seconds[each.lasts]))
                links[id(link)] = link
        shared = [(key, found) for key, found in users.items() if len(found) > 1]
        self._links = [links[key] for key, _ in shared]
        rows = [(*each, number) for number, (_, found) in enumerate(shared) for each in found]
        places, messages = course.places, course.messages
        self._course = course
        self._messages = _Rows.of([row for row in rows if row[0].is_message], places.legs[messages.sources])
        self._steps = _Rows.of([row for row in rows if not row[0].is_message], places.legs)

    def first(self, walked: Walked, section: Section, until: float) -> float:
        """When the first passage before ``until`` begins while another one is on its link, else infinity."""
        if not self._links:
            return inf
        places, sources = self._course.places, self._course.messages.sources
        messages, steps = self._messages.within(section), self._steps.within(section)
        messages = messages.at(section.holds(sources[messages.numbers], places))
        steps = steps.at(section.holds(steps.numbers, places))
        under_way = [
            (link.passage.start, link.free, number)
            for number, link in enumerate(self._links)
            if isinstance(link.passage, Send)
        ]
        began = walked.starts[steps.numbers]
        starts = np.concatenate(
            (walked.leaves[messages.numbers], began, [start for start, _, _ in under_way])
        )
        ends = np.concatenate(
            (walked.arrives[messages.numbers], began + steps.seconds, [free for _, free, _ in under_way])
        )
        numbers = np.array([number for _, _, number in under_way], dtype=np.intp)
        links = np.concatenate((messages.links, steps.links, numbers))
        early = np.flatnonzero(starts < until)
        order = early[np.lexsort((ends[early], starts[early], links[early]))]
        starts, ends, links = starts[order], ends[order], links[order]
        met = starts[1:][(links[1:] == links[:-1]) & (starts[1:] < ends[:-1])]
        return float(met.min(initial=inf))
