"""What the engine runs: timed tasks on streams, joined by tokens and meetings."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

COMPUTE = "compute"
LATER = 1 + 1e-12  # ends closer than rounding count as equal, whatever order sums were taken in

Token: TypeAlias = Hashable
Profile: TypeAlias = Mapping[str, float]
"""Where the time of a replayed block went: category → seconds, summing to its length."""


class Meeting(NamedTuple):
    """A rendezvous: its task starts once ``members`` streams have arrived at ``key``.

    ``ends_together``: the tasks of all members also end when the last of them does.
    """

    key: Hashable
    members: int
    ends_together: bool = False


class Leaving(NamedTuple):
    """The share of a transfer's NIC traffic that crosses uplinks of oversubscribed switches.

    ``level``: which of the cluster's kinds of uplinks. A message goes to a ``target`` device.
    """

    level: int
    name: str
    share: float
    target: int | None = None


class Flow(NamedTuple):
    """The links a transfer crosses, and the rate at which it crosses them when it is alone, bytes/s.

    A link is named by what it is and the device (of a simulation of every rank: the rank) whose it is. It
    carries ``crossings`` times the rate, in the order of the links; empty: once each. What of it is
    ``leaving`` switches goes over links that ranks have in common (:mod:`simulator.engine.uplinks`).
    """

    links: tuple[tuple[str, Hashable], ...]
    rate: float
    crossings: tuple[float, ...] = ()
    leaving: tuple[Leaving, ...] = ()

    @property
    def demands(self) -> Iterator[tuple[str, float]]:
        """Kinds of links, and bytes/s on each when it is alone; on uplinks, per rank below them."""
        for (kind, _), times in zip(self.links, self.crossings or (1.0,) * len(self.links), strict=True):
            yield kind, self.rate * times
        for _, name, share, _ in self.leaving:
            yield name, self.rate * share


class Task(NamedTuple):
    """Work of known length.

    It starts after the task before it on its stream, its ``waits`` and its ``meeting``. With a ``flow`` it
    takes longer while others use its links; while it ``holds`` a share of the device's processors, compute
    beside it takes longer. A replayed block ``carries`` so many bytes over each kind of link. It signals
    ``begun`` when it starts, and its ``signal`` when it ends. Only :mod:`simulator.engine.quiet` runs a task
    that stands for ``steps`` of its device.
    """

    name: str
    category: str
    seconds: float
    waits: tuple[Token, ...] = ()
    signal: Token | None = None
    meeting: Meeting | None = None
    profile: Profile | None = None
    flow: Flow | None = None
    holds: float = 0.0
    carries: Mapping[str, float] | None = None
    steps: range | None = None
    begun: Token | None = None


Streams: TypeAlias = Mapping[str, Sequence[Task]]
"""Tasks of one rank (class) by stream, in issue order."""


class Record:
    """One task as it ran. ``cause`` is the record that let it start: the last thing it waited for."""

    __slots__ = ("cause", "end", "rank", "start", "stream", "task")

    def __init__(self, rank: int, stream: str, task: Task, start: float, cause: Record | None) -> None:
        self.rank = rank
        self.stream = stream
        self.task = task
        self.start = start
        self.end = start + task.seconds  # of a transfer that is slowed down: set when it has ended
        self.cause = cause
