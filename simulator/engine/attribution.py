"""Where did the time of a compute stream go? Every instant is attributed once.

Busy time goes to the task's own category, or to the categories of a replayed block; compute that
data-parallel collectives slow down counts the delay as theirs. An idle instant goes to what ended it:
communication that was under way then, else the pipeline (``bubble``), because another stage was still
computing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from simulator.engine.tasks import COMPUTE, Record

BUBBLE = "bubble"
BESIDE = "exposed_dp"  # compute slowed down by data-parallel collectives beside it
ROUNDING = 1e-12


def breakdown(records: Sequence[Record], end: float, tail: str, *, since: float = 0.0) -> dict[str, float]:
    """Seconds by category of one compute stream between ``since`` and ``end``; they sum to the difference.

    ``tail`` names the cause of idleness after the stream's last task.
    """
    spent: defaultdict[str, float] = defaultdict(float)
    clock = since
    for record in records:
        if record.start > clock:
            _attribute_idle(spent, clock, record.start, record)
        if record.task.profile is not None:
            for category, seconds in record.task.profile.items():
                spent[category] += seconds
        else:
            spent[record.task.category] += record.task.seconds
        stretch = record.end - record.start - record.task.seconds
        if stretch > ROUNDING * record.end:
            spent[record.task.category if record.task.flow else BESIDE] += stretch
        clock = record.end
    if end > clock:
        spent[tail] += end - clock
    return dict(spent)


def _attribute_idle(spent: defaultdict[str, float], since: float, until: float, waiting: Record) -> None:
    """Walks back through what was waited for, from ``until`` to ``since``."""
    cause = waiting.cause
    while cause is not None and cause.stream != COMPUTE and until > since:
        begun = max(since, cause.start)
        if begun < until:
            spent[cause.task.category] += until - begun
            until = begun
        cause = cause.cause
    if until > since:
        spent[BUBBLE] += until - since
