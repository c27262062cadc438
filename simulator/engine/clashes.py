"""Whether passages met on a link, looked up for thousands of them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import inf
from typing import NamedTuple, TypeAlias

import numpy as np

from simulator.engine.course import Course, Mask, Numbers, Passages, Section
from simulator.engine.links import LinkName
from simulator.engine.quiet import QuietDevice
from simulator.engine.senders import Send
from simulator.engine.stretch import Walked

Crossed: TypeAlias = tuple[tuple[tuple[LinkName, ...], ...], ...]
"""Names of links, by device and position in its lengths."""


class _Rows(NamedTuple):
    """Messages by number or steps by place, once for every link that they cross, by their ``legs``.

    ``lasts``: where their seconds are found among those of all devices.
    """

    numbers: Numbers
    lasts: Numbers
    links: Numbers
    legs: Numbers

    @classmethod
    def of(cls, found: Sequence[tuple[Passages, int, int]], legs: Numbers) -> _Rows:
        """Passages, where their seconds are, and a link that they cross. ``legs``: by number."""
        numbers = np.concatenate([np.empty(0, dtype=np.intp), *(each.numbers for each, _, _ in found)])
        sizes = [len(each.numbers) for each, _, _ in found]
        lasts, links = (
            np.repeat(np.array([row[at] for row in found], dtype=np.intp), sizes) for at in (1, 2)
        )
        order = np.argsort(legs[numbers], kind="stable")
        return cls(numbers, lasts, links, legs[numbers]).at(order)

    def within(self, section: Section) -> _Rows:
        """Those whose leg lies between the first and the last of a section."""
        return self.at(slice(*np.searchsorted(self.legs, (section.first, section.last + 1))))

    def at(self, rows: slice | Numbers | Mask) -> _Rows:
        """Some of them."""
        return _Rows(self.numbers[rows], self.lasts[rows], self.links[rows], self.legs[rows])


class _Crossings(NamedTuple):
    """Who crosses which link. One that a single stream crosses is left out: it does one thing at a time."""

    links: Sequence[LinkName]
    messages: _Rows
    steps: _Rows

    @classmethod
    def of(cls, course: Course, crossed: Crossed) -> _Crossings:
        """``crossed``: the names of links by what crosses them."""
        users: defaultdict[LinkName, list[Passages]] = defaultdict(list)
        for each in course.passages:
            for link in crossed[each.device][each.lasts]:
                users[link].append(each)
        shared = {link: found for link, found in users.items() if len(found) > 1}
        rows = [
            (each, course.lengths[each.device].begin + each.lasts, number)
            for number, found in enumerate(shared.values())
            for each in found
        ]
        legs = course.places.legs
        return cls(
            list(shared),
            _Rows.of([row for row in rows if row[0].is_message], legs[course.messages.sources]),
            _Rows.of([row for row in rows if not row[0].is_message], legs),
        )


class Clashes:
    """Looks for those who meet on a link."""

    def __init__(self, course: Course, devices: Sequence[QuietDevice], seconds: Sequence[float]) -> None:
        """``seconds``: of all devices."""
        crossed = [device.links() for device in devices]
        names = tuple([tuple([tuple([link.name for link in each]) for each in own]) for own in crossed])
        found = course.crossings.get(names)
        if found is None:
            found = course.crossings[names] = _Crossings.of(course, names)
        links = {link.name: link for own in crossed for each in own for link in each}
        self._course = course
        self._seconds = np.array(seconds)
        self._links = [links[name] for name in found.links]
        self._messages, self._steps = found.messages, found.steps

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
            (
                walked.arrives[messages.numbers],
                began + self._seconds[steps.lasts],
                [free for _, free, _ in under_way],
            )
        )
        numbers = np.array([number for _, _, number in under_way], dtype=np.intp)
        links = np.concatenate((messages.links, steps.links, numbers))
        early = np.flatnonzero(starts < until)
        order = early[np.lexsort((ends[early], starts[early], links[early]))]
        starts, ends, links = starts[order], ends[order], links[order]
        met = starts[1:][(links[1:] == links[:-1]) & (starts[1:] < ends[:-1])]
        return float(met.min(initial=inf))
