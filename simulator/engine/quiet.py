"""The quiet steps of one device, one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

import simpy

from simulator.engine.attribution import BESIDE, BUBBLE, ROUNDING, attribute_idle
from simulator.engine.costing import exposed
from simulator.engine.lane import Lane
from simulator.engine.links import Transfer
from simulator.engine.messages import Exchange
from simulator.engine.processors import Processors, bound_part
from simulator.engine.senders import Hop, Send, Sender
from simulator.engine.tasks import COMPUTE, LATER, Profile, Record, Streams, Task, Token
from simulator.engine.wiring import GATHER, DeviceWiring, Sent

PP = exposed("pp")
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
        marks: steps before which the breakdown is noted.
    """

    wiring: DeviceWiring
    seconds: Sequence[float]
    profiles: Sequence[Profile]
    hops: Sequence[Task]
    exchanges: Mapping[tuple[int, bool], Task]
    gather: Task | None
    posts: Mapping[Token, Sent]
    marks: frozenset[int] = frozenset()

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


class Mark(NamedTuple):
    """What stands before a step: the breakdown since the range of steps began, and messages by stream.

    Messages count from the first mark on.
    """

    spent: Mapping[str, float]
    posted: Mapping[str, int]


class Crossing:
    """Communication that a device waits for: a passage over its links."""

    __slots__ = ("_changed", "end", "start", "task", "transfer")

    def __init__(self, task: Task, start: float, changed: Callable[[Crossing], None]) -> None:
        self._changed = changed
        self.task = task
        self.start = start
        self.end = start + task.seconds
        self.transfer: Transfer | None = None

    def begin(self, lane: Lane) -> None:
        """Takes its links, which may retime whatever is on them."""
        if self.task.flow is not None and lane.links is not None:
            lane.links.pass_over(lane.links_of(self.task), self)

    def retimed(self) -> None:
        """Implements :class:`simulator.engine.links.Passage`."""
        if self.transfer is not None:
            self.end = self.transfer.end
            self._changed(self)


class BothSides:
    """A blocking exchange between two devices that have met: over when both sides are."""

    __slots__ = ("_devices", "_sides")

    def __init__(self, lane: Lane, at: float, devices: Sequence[QuietDevice]) -> None:
        self._devices = devices
        self._sides = [Crossing(device.side(), at, self._retimed) for device in devices]
        for side in self._sides:
            side.begin(lane)
        for device in devices:
            device.exchanges(self, at, self._end)

    @property
    def _end(self) -> float:
        return max(side.end for side in self._sides)

    def _retimed(self, _: Crossing) -> None:
        for device in self._devices:
            device.exchange_retimed(self, self._end)


class QuietDevice:
    """Runs quiet steps, a range of them whenever its compute stream comes to one.

    From the first mark on it keeps ``starts`` and ``ends`` by step, and what stood ``at_marks``.
    """

    __slots__ = (
        "_before",
        "_both",
        "_cause",
        "_counts",
        "_done",
        "_free",
        "_gather",
        "_hops",
        "_lane",
        "_left",
        "_marks",
        "_next",
        "_noted",
        "_processors",
        "_program",
        "_rank",
        "_rate",
        "_running",
        "_seconds",
        "_senders",
        "_since",
        "_slowed",
        "_spent",
        "_start",
        "_steps",
        "_stop",
        "at_marks",
        "ends",
        "starts",
        "version",
    )

    def __init__(self, lane: Lane, rank: int, program: QuietProgram, processors: Processors) -> None:
        streams = {route.stream for route in program.wiring.routes}
        senders = {stream: Sender(lane, rank, stream) for stream in sorted(streams)}
        self._lane = lane
        self._rank = rank
        self._program = program
        self._steps = program.wiring.steps
        self._seconds = program.seconds
        self._senders = [senders[route.stream] for route in program.wiring.routes]
        self._hops = [Hop(task, lane.links_of(task)) for task in program.hops]
        self._processors = processors
        self._marks = program.marks
        self._noted: float = inf  # the first step that stands at a mark
        self._before: dict[str, int] = {}  # messages of each stream before that
        self._next = self._stop = 0
        self._free = 0.0  # when the step before ended
        self._start = 0.0
        self._running = False  # an action, from ``_start`` on
        self._left = self._since = 0.0  # of it: seconds at its own rate, brought up to a time
        self._rate = 1.0
        self._slowed = False  # by collectives at any time of it
        self._gather: Crossing | None = None
        self._both: BothSides | None = None  # of the exchange under way
        self._counts = [0] * len(program.seconds)  # by work
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._done: simpy.Event = lane.env.event()
        self.version = 0
        self._cause: Send | None = None
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self.at_marks: dict[int, Mark] = {}
        lane.devices.append(self)
        lane.posts.update(dict.fromkeys(program.posts, self))
        processors.listener = self._processors_changed

    def run(self, task: Task, previous: Record | None) -> Generator[simpy.Event, object, Record]:
        """Runs the steps of a task, for the process of its stream. Its record's profile breaks them down."""
        assert task.steps is not None
        begun = self._lane.env.now
        self._next, self._stop = task.steps.start, task.steps.stop
        self._counts = [0] * len(self._seconds)
        self._spent.clear()
        self._done = self._lane.env.event()
        self._free = begun
        if self._next in self._marks:
            self._mark()
        self._try()
        yield self._done
        profile = self._breakdown()
        task = task._replace(seconds=self._free - begun, profile=profile)
        record = Record(self._rank, COMPUTE, task, begun, previous)
        record.end = self._free
        return record

    def counts_on(self, token: Token) -> bool:
        """Implements :class:`simulator.engine.lane.Device`."""
        waits = self._steps[self._next].waits if self._next < self._stop else ()
        return self._start < inf and self._gather is None and token in waits

    def resume(self) -> None:
        """Implements :class:`simulator.engine.lane.Device`."""
        self.version += 1
        self._try()

    def _try(self) -> None:
        """Starts the next step as soon as its messages have come, if it is known when."""
        work, waits, _, exchange = self._steps[self._next]
        start, cause = self._free, None
        arrivals = self._lane.arrivals
        self._running = False
        for token in waits:
            send = arrivals.get(token)
            if send is None:
                self._start = inf
                self._lane.waiting.setdefault(token, []).append(self)
                return
            end = send.end
            if end > start:
                if end > start * LATER:
                    cause = send
                start = end
        self._start, self._cause = start, cause
        if exchange is not None:
            self._exchange(exchange)
        elif work == GATHER:
            if start > self._free:
                self._lane.push(start, self)
            else:
                self._start_gather(start)
        else:
            self._running = True
            self._since, self._left, self._rate = start, self._seconds[work], 1.0
            if self._processors.held:
                self._slow_down(work)
                self._lane.push(start + self._left / self._rate, self)
            else:
                self._lane.push(start + self._left, self)

    def _exchange(self, exchange: Exchange) -> None:
        meeting = self._lane.meeting
        other = meeting.pop(exchange.key, None)
        if other is None:
            meeting[exchange.key] = self
        else:
            BothSides(self._lane, self._free, (other, self))

    def side(self) -> Task:
        """What it does in its current exchange."""
        exchange = self._steps[self._next].exchange
        assert exchange is not None
        return self._program.exchanges[exchange.side(self._rank)]

    def exchanges(self, both: BothSides, start: float, end: float) -> None:
        """The other side has come."""
        self._both, self._start = both, start
        self._lane.push(end, self)

    def exchange_retimed(self, both: BothSides, end: float) -> None:
        """The exchange ends at another time, unless it is over already."""
        if self._both is both:
            self._ends_at(end)

    def _ends_at(self, end: float) -> None:
        self.version += 1
        self._lane.push(end, self)

    def _start_gather(self, at: float) -> None:
        """The message has come, scattered over the group."""
        task = self._program.gather
        assert task is not None
        self._gather = Crossing(task, at, self._gather_retimed)
        self._gather.begin(self._lane)
        self._lane.push(self._gather.end, self)

    def _gather_retimed(self, gather: Crossing) -> None:
        """A gather ends at another time; one that has ended may be told so at that very instant."""
        if gather is self._gather:
            self._ends_at(gather.end)

    def _slow_down(self, work: int) -> None:
        bound = bound_part(self._program.profiles[work], self._seconds[work])
        self._rate = 1.0 - self._processors.held * bound
        self._slowed = True

    def _processors_changed(self) -> None:
        """Collectives hold more or fewer processors from now on."""
        if not self._running:
            return
        now = self._lane.env.now
        self._left -= max(0.0, now - self._since) * self._rate
        self._since = max(self._since, now)
        self._slow_down(self._steps[self._next].work)
        self.version += 1
        self._lane.push(self._since + self._left / self._rate, self)

    def fire(self, at: float) -> None:
        """Implements :class:`simulator.engine.lane.Owner`: the current step has ended."""
        work, _, sends, _ = self._steps[self._next]
        if work == GATHER and self._gather is None:
            self._start_gather(at)
            return
        self._running = False
        if self._start > self._free:
            until, _ = attribute_idle(self._spent, self._free, self._start, self._cause)
            self._spent[BUBBLE] += max(0.0, until - self._free)
        if work < 0 or self._slowed:
            self._account(work, at)
        else:
            self._counts[work] += 1
        self._free = at
        start, self._start = self._start, inf  # what it sends may retime what ends now: this step has ended
        for route, token, _ in sends:
            self._senders[route].send(at, self._hops[route], token)
        if self._next >= self._noted:
            self.starts[self._next], self.ends[self._next] = start, at
        self._next += 1
        if self._next in self._marks:
            self._mark()
        if self._next < self._stop:
            self._try()
        else:
            self._lane.call(at, self._done)

    def _account(self, work: int, at: float) -> None:
        """What a step that is not an action has taken, or an action beside collectives."""
        if work < 0:
            self._gather = self._both = None
            self._spent[self._category(work)] += at - self._start
            return
        self._counts[work] += 1
        self._slowed = False
        stretch = at - self._start - self._seconds[work]
        if stretch > ROUNDING * at:
            self._spent[BESIDE] += stretch

    def _category(self, work: int) -> str:
        gather = self._program.gather
        return gather.category if work == GATHER and gather is not None else PP

    def post(self, at: float, token: Token) -> None:
        """Implements :class:`simulator.engine.lane.Device`."""
        sent = self._program.posts[token]
        self._senders[sent.route].send(at, self._hops[sent.route], sent.token)

    def _mark(self) -> None:
        self._noted = min(self._noted, self._next)
        posted = {}
        for sender in self._senders:
            if sender.kept is None:
                self._before[sender.name] = sender.keep()
            posted[sender.name] = sender.posted - self._before[sender.name]
        self.at_marks[self._next] = Mark(self._breakdown(), posted)

    def sent(self, stream: str) -> Sequence[Send]:
        """Messages of a stream since the first mark."""
        return next(sender.kept or () for sender in self._senders if sender.name == stream)

    def _breakdown(self) -> dict[str, float]:
        total = defaultdict(float, self._spent)
        for count, profile in zip(self._counts, self._program.profiles, strict=True):
            for category, seconds in profile.items() if count else ():
                total[category] += count * seconds
        return dict(total)
