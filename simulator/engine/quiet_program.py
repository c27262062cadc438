"""What the quiet steps of a device take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from simulator.engine.costing import PP
from simulator.engine.tasks import Profile, Streams, Task, Token
from simulator.engine.wiring import GATHER, DeviceWiring, Sent

GATHERS = "gather"  # of scattered messages: what their stream would be
EXCHANGES = "exchange"  # blocking ones


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietProgram:
    """What the steps of one device take.

    Attributes:
        seconds: of each work of the wiring, and profiles that sum to them.
        hops: a message on each route.
        exchanges: the device's side of a blocking one, by with whom and whether it sends.
        gather: what follows each message that arrives scattered.
        posts: messages of other actions, by the token that lets them go.
        notes: whether times of steps and messages are kept.
    """

    wiring: DeviceWiring
    seconds: Sequence[float]
    profiles: Sequence[Profile]
    hops: Sequence[Task]
    exchanges: Mapping[tuple[int, bool], Task]
    gather: Task | None
    posts: Mapping[Token, Sent]
    notes: bool = False

    def category(self, work: int) -> str:
        """As what a step counts that is not an action."""
        return self.gather.category if work == GATHER and self.gather is not None else PP

    @property
    def transfers(self) -> dict[str, list[Task]]:
        """A message on each route, by stream, and the gather."""
        found: defaultdict[str, list[Task]] = defaultdict(list)
        for route, hop in zip(self.wiring.routes, self.hops, strict=True):
            found[route.stream].append(hop)
        if self.gather is not None:
            found[GATHERS].append(self.gather)
        if self.exchanges:
            found[EXCHANGES] = list(self.exchanges.values())
        return dict(found)

    def with_transfers(self, streams: Streams) -> QuietProgram:
        """With those that streams hold."""
        found = {stream: iter(streams[stream]) for stream in self.transfers}
        return replace(
            self,
            hops=[next(found[route.stream]) for route in self.wiring.routes],
            gather=next(found[GATHERS]) if self.gather is not None else None,
            exchanges={side: next(found[EXCHANGES]) for side in self.exchanges},
        )
