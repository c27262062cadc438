"""What a device did in a stretch of its quiet steps, taken together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simulator.engine.attribution import BUBBLE
from simulator.engine.costing import exposed
from simulator.engine.course import DeviceCourse, Places, Times

PP = exposed("pp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Steps [first, stop), in seconds.

    ``awaited``: since when each message under way at the end of an idle time had been, with those before it
    on its stream; infinite where none was.
    """

    course: DeviceCourse
    first: int
    stop: int
    begun: Times  # the end of the step before
    starts: Times
    ends: Times
    awaited: Times

    def works(self, first: int, stop: int) -> Places:
        """How many of these steps have each work."""
        lasts, works = self.course.lasts[first:stop], self.course.lengths.gather
        return np.bincount(lasts[lasts < works], minlength=works)

    def spent(self, first: int, stop: int, gather: str) -> Mapping[str, float]:
        """What these steps took besides works, by category."""
        part, lengths = slice(first - self.first, stop - self.first), self.course.lengths
        starts, lasts = self.starts[part], self.course.lasts[first:stop]
        took = self.ends[part] - starts
        idle = starts - self.begun[part]
        under_way = np.clip(starts - self.awaited[part], 0.0, idle)
        spent = {PP: float(under_way.sum()), BUBBLE: float((idle - under_way).sum())}
        spent[PP] += float(took[lasts >= lengths.exchanges].sum())
        spent[gather] = spent.get(gather, 0.0) + float(took[lasts == lengths.gather].sum())
        return {category: seconds for category, seconds in spent.items() if seconds}

    def posted(self, stream: str, first: int, stop: int) -> int:
        """Messages of a stream that these steps send."""
        steps = self.course.messages[stream][1]
        a, b = np.searchsorted(steps, (first, stop))
        return int(b - a)
