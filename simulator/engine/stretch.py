"""What devices did in a stretch of their quiet steps, taken together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from simulator.engine.attribution import BUBBLE
from simulator.engine.costing import PP
from simulator.engine.course import Course, Numbers, Times, spans
from simulator.engine.tasks import LATER


class Walked(NamedTuple):
    """When things happen: steps by place, messages by number.

    ``since``: when the first of those messages left that each has followed without a pause.
    """

    starts: Times
    ends: Times
    leaves: Times
    arrives: Times
    since: Times

    @classmethod
    def nothing(cls, course: Course) -> Walked:
        """Before anything has happened. Message 0 has always been there."""
        steps, messages = (np.full(len(x), np.inf) for x in (course.places.devices, course.messages.tokens))
        arrives = messages.copy()
        arrives[0] = -np.inf
        return cls(steps, steps.copy(), messages, arrives, messages.copy())


class Part(NamedTuple):
    """Steps of a device up to one: how many of each work, and seconds besides works.

    By step: when it started and ended, and for how long a message was under way while the device stood idle.
    """

    device: int
    stop: int
    works: Mapping[int, int]
    spent: Mapping[str, float]
    starts: Times
    ends: Times
    waited: Times


def parts(
    course: Course, walked: Walked, begins: Numbers, stops: Numbers, gathers: Sequence[str]
) -> Iterator[Part]:
    """Accounts of the places [begin, stop) of each device that has any.

    ``gathers``: by device, as what gathers of scattered messages count.
    """
    every, size = spans(begins, stops), len(begins)
    devices = course.places.devices[every]
    width = max(lengths.hops for lengths in course.lengths)
    kinds = devices * width + course.places.lasts[every]
    took = walked.ends[every] - walked.starts[every]
    counts = np.bincount(kinds, minlength=size * width).reshape(-1, width).tolist()
    seconds = np.bincount(kinds, took, minlength=size * width).reshape(-1, width)
    idle = walked.starts[every] - walked.ends[every - 1]
    waited = np.clip(walked.starts[every] - _since(course, walked, every), 0.0, idle)
    messages, bubbles = (np.bincount(devices, each, minlength=size) for each in (waited, idle - waited))
    rows = np.split(waited, np.cumsum(stops - begins)[:-1])
    for device, (begin, stop) in enumerate(zip(begins.tolist(), stops.tolist(), strict=True)):
        if begin == stop:
            continue
        lengths, gather = course.lengths[device], gathers[device]
        spent = {PP: float(messages[device] + seconds[device, lengths.exchanges : lengths.hops].sum())}
        spent[BUBBLE] = float(bubbles[device])
        spent[gather] = spent.get(gather, 0.0) + float(seconds[device, lengths.gather])
        yield Part(
            device,
            stop - int(course.places.origins[device]) - 1,
            {work: count for work, count in enumerate(counts[device][: lengths.gather]) if count},
            {category: seconds for category, seconds in spent.items() if seconds},
            walked.starts[begin:stop],
            walked.ends[begin:stop],
            rows[device],
        )


def _since(course: Course, walked: Walked, places: Numbers) -> Times:
    """Since when the message that ends an idle time has been under way; infinite where none ends one."""
    awaited = course.places.awaited[places]
    begun = walked.ends[places - 1]
    for at in np.flatnonzero(awaited < 0).tolist():
        awaited[at] = _latest(course, walked, int(places[at]), float(begun[at]))
    late = walked.arrives[awaited] > begun * LATER
    return np.where(late, walked.since[awaited], np.inf)


def _latest(course: Course, walked: Walked, place: int, begun: float) -> int:
    """The message that a step waits for last."""
    at, found = begun, 0
    for message in course.legs[course.places.legs[place]].waits:
        arrival = float(walked.arrives[message])
        if arrival > at * LATER:
            found = message
        at = max(at, arrival)
    return found
