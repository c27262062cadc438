"""Where did the time of a compute stream go? Every instant is attributed once.

Busy time goes to the task's own category, or to the categories of a replayed block; compute that
data-parallel collectives slow down counts the delay as theirs. An idle instant goes to what ended it:
communication that was under way then, else another rank of the same device that was slower (``jitter``),
else the pipeline (``bubble``), because another stage was still computing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from simulator.engine.tasks import COMPUTE, Profile, Record

BUBBLE = "bubble"
JITTER = "jitter"  # lost to unequal times of equal work
BESIDE = "exposed_dp"  # compute slowed down by data-parallel collectives beside it
ROUNDING = 1e-12


def breakdown(
    records: Sequence[Record],
    end: float,
    tail: str,
    *,
    since: float = 0.0,
    alike: Collection[int] = (),
) -> dict[str, float]:
    """Seconds by category of one compute stream between ``since`` and ``end``; they sum to the difference.

    ``tail`` names the cause of idleness after the stream's last task; ``alike`` are ranks that do the same
    work: waiting for one of them is jitter.
    """
    spent: defaultdict[str, float] = defaultdict(float)
    profiles: dict[int, Profile] = {}  # by identity: replays of one block have one between them
    replays: dict[int, int] = {}
    clock = since
    for record in records:
        task, start, finish = record.task, record.start, record.end
        if start > clock:
            begun, cause = attribute_idle(spent, clock, start, record.cause)
            late = cause is not None and cause.rank != record.rank and cause.rank in alike
            if begun > clock:
                spent[JITTER if late else BUBBLE] += begun - clock
        profile = task.profile
        if profile is not None:
            key = id(profile)
            profiles[key] = profile
            replays[key] = replays.get(key, 0) + 1
        else:
            spent[task.category] += task.seconds
        stretch = finish - start - task.seconds
        if stretch > ROUNDING * finish:
            spent[BESIDE if task.flow is None and task.meeting is None else task.category] += stretch
        clock = finish
    for key, times in replays.items():
        for category, seconds in profiles[key].items():
            spent[category] += times * seconds
    if end > clock:
        spent[tail] += end - clock
    return dict(spent)


def attribute_idle(
    spent: defaultdict[str, float], since: float, until: float, cause: Record | None
) -> tuple[float, Record | None]:
    """Walks back from ``until`` to ``since`` through the communication that was waited for.

    Returns when it began, and the record before it: of a compute stream, or none.
    """
    while cause is not None and cause.stream != COMPUTE and until > since:
        begun = max(since, cause.start)
        if begun < until:
            spent[cause.task.category] += until - begun
            until = begun
        cause = cause.cause
    return until, cause
