"""Whether passages met on a link, looked up for thousands of them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from simulator.engine.course import Course, Mask, Places, Times
from simulator.engine.links import Link
from simulator.engine.quiet import QuietDevice
from simulator.engine.senders import Send


class Walked(NamedTuple):
    """When things happen if no two passages meet: steps by place, messages by number."""

    starts: Times
    ends: Times
    leaves: Times
    arrives: Times


class Window(NamedTuple):
    """Legs [first, last] of a course. By device: the places that lie in it, [begin, stop)."""

    first: int
    last: int
    begins: Places
    stops: Places

    def holds(self, places: Places, course: Course) -> Mask:
        """By place, whether it lies in it."""
        own = course.device_of[places]
        return (places >= self.begins[own]) & (places < self.stops[own])


class _Crossing(NamedTuple):
    """Communication of a device that always crosses the same links."""

    numbers: Places  # of messages, or places of steps
    seconds: float
    is_message: bool
    links: Sequence[Link]


class _Rows(NamedTuple):
    """Messages by number or steps by place, once for every link that they cross, by their ``legs``."""

    numbers: Places
    seconds: Times
    links: Places
    legs: Places

    @classmethod
    def of(cls, found: Sequence[tuple[Places, float, int]], legs: Places) -> _Rows:
        """Crossings of so many seconds, each of a link. ``legs``: by number."""
        numbers = np.concatenate([np.empty(0, dtype=np.intp), *(each for each, _, _ in found)])
        sizes = [len(each) for each, _, _ in found]
        seconds = np.repeat(np.array([seconds for _, seconds, _ in found], dtype=np.float64), sizes)
        links = np.repeat(np.array([link for _, _, link in found], dtype=np.intp), sizes)
        order = np.argsort(legs[numbers], kind="stable")
        return cls(numbers, seconds, links, legs[numbers]).at(order)

    def within(self, window: Window) -> _Rows:
        """Those whose leg lies between the first and the last of a window."""
        return self.at(slice(*np.searchsorted(self.legs, (window.first, window.last + 1))))

    def at(self, rows: slice | Places | Mask) -> _Rows:
        """Some of them."""
        return _Rows(self.numbers[rows], self.seconds[rows], self.links[rows], self.legs[rows])


class Clashes:
    """Who crosses which link. One that a single stream crosses is left out: it does one thing at a time."""

    def __init__(self, course: Course, devices: Sequence[QuietDevice]) -> None:
        found = [each for number, device in enumerate(devices) for each in _crossings(course, number, device)]
        by_link: defaultdict[int, set[Hashable]] = defaultdict(set)
        self._links = {id(link): link for each in found for link in each.links}
        numbers = {each: number for number, each in enumerate(self._links)}
        rows: dict[bool, list[tuple[Places, float, int]]] = {True: [], False: []}
        for position, each in enumerate(found):
            for link in each.links:
                by_link[id(link)].add(position)
        for each in found:
            for link in each.links:
                if len(by_link[id(link)]) > 1:
                    rows[each.is_message].append((each.numbers, each.seconds, numbers[id(link)]))
        self._course = course
        self._messages = _Rows.of(rows[True], course.where[course.sources])
        self._steps = _Rows.of(rows[False], course.where)

    def first(self, walked: Walked, window: Window, until: float) -> float:
        """When the first passage before ``until`` begins while another one is on its link, else infinity."""
        course = self._course
        messages = self._messages.within(window)
        messages = messages.at(window.holds(course.sources[messages.numbers], course))
        steps = self._steps.within(window)
        steps = steps.at(window.holds(steps.numbers, course))
        starts = np.concatenate((walked.leaves[messages.numbers], walked.starts[steps.numbers]))
        ends = np.concatenate(
            (walked.arrives[messages.numbers], walked.starts[steps.numbers] + steps.seconds)
        )
        links = np.concatenate((messages.links, steps.links))
        early = starts < until
        starts, ends, links = starts[early], ends[early], links[early]
        under_way = [
            (link.passage.start, link.free, number)
            for number, link in enumerate(self._links.values())
            if isinstance(link.passage, Send) and link.free > 0.0
        ]
        starts = np.concatenate((starts, [start for start, _, _ in under_way]))
        ends = np.concatenate((ends, [free for _, free, _ in under_way]))
        links = np.concatenate((links, np.array([number for _, _, number in under_way], dtype=np.intp)))
        order = np.lexsort((ends, starts, links))
        starts, ends, links = starts[order], ends[order], links[order]
        met = starts[1:][(links[1:] == links[:-1]) & (starts[1:] < ends[:-1])]
        return float(met.min(initial=inf))


def _crossings(course: Course, number: int, device: QuietDevice) -> Iterator[_Crossing]:
    """What crosses links in a device's steps."""
    own = course.devices[number]
    messages = np.concatenate([np.empty(0, dtype=np.intp), *(ids for ids, _ in own.messages.values())])
    for at, (seconds, links) in enumerate(zip(device.lengths(), device.links(), strict=True)):
        if links and at < own.lengths.hops:
            yield _Crossing(own.origin + 1 + np.flatnonzero(own.lasts == at), seconds, False, links)
        elif links:
            route = at - own.lengths.hops
            yield _Crossing(messages[course.routes[messages] == route], seconds, True, links)
