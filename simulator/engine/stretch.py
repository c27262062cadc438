"""What devices did in a stretch of their quiet steps, taken together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from simulator.engine.attribution import BUBBLE
from simulator.engine.costing import exposed
from simulator.engine.course import Course, Numbers, Times, spans
from simulator.engine.tasks import LATER

PP = exposed("pp")


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
    """Steps of a device up to one: how many of each work, seconds besides works, and messages by stream."""

    device: int
    stop: int
    works: Mapping[int, int]
    spent: Mapping[str, float]
    posted: Mapping[str, int]


def parts(
    course: Course, walked: Walked, begins: Numbers, stops: Numbers, gathers: Sequence[str]
) -> Iterator[Part]:
    """Accounts of the places [begin, stop) of ranges that lie in one device each.

    ``gathers``: by device, as what gathers of scattered messages count.
    """
    every = spans(begins, stops)
    ranges = np.repeat(np.arange(len(begins)), stops - begins)
    width = max(lengths.hops for lengths in course.lengths)
    kinds = ranges * width + course.places.lasts[every]
    took = walked.ends[every] - walked.starts[every]
    counts = np.bincount(kinds, minlength=len(begins) * width).reshape(-1, width).tolist()
    seconds = np.bincount(kinds, took, minlength=len(begins) * width).reshape(-1, width)
    idle = walked.starts[every] - walked.ends[every - 1]
    under_way = np.clip(walked.starts[every] - _since(course, walked, every), 0.0, idle)
    messages, bubbles = (
        np.bincount(ranges, each, minlength=len(begins)).tolist() for each in (under_way, idle - under_way)
    )
    posted = _posted(course, begins, stops)
    for number, (device, stop) in enumerate(
        zip(course.places.devices[begins].tolist(), stops.tolist(), strict=True)
    ):
        lengths, gather = course.lengths[device], gathers[device]
        spent = {PP: messages[number] + float(seconds[number, lengths.exchanges : lengths.hops].sum())}
        spent[BUBBLE] = bubbles[number]
        spent[gather] = spent.get(gather, 0.0) + float(seconds[number, lengths.gather])
        yield Part(
            device,
            stop - int(course.places.origins[device]) - 1,
            {work: count for work, count in enumerate(counts[number][: lengths.gather]) if count},
            {category: seconds for category, seconds in spent.items() if seconds},
            posted[number],
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


def _posted(course: Course, begins: Numbers, stops: Numbers) -> list[dict[str, int]]:
    """Messages that steps send, by range and stream."""
    first, last = course.places.messages[begins], course.places.messages[stops]
    messages = course.messages
    width = len(messages.names)
    ranges = np.repeat(np.arange(len(begins)), last - first)
    keys, counts = np.unique(ranges * width + messages.streams[spans(first, last)], return_counts=True)
    found: list[dict[str, int]] = [{} for _ in begins]
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        number, stream = divmod(key, width)
        found[number][messages.names[stream][1]] = count
    return found
