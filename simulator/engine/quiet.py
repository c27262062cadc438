"""The quiet steps of one device, one after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from math import inf, nan

import simpy

from simulator.engine.agenda import Ending
from simulator.engine.attribution import BESIDE, BUBBLE, ROUNDING
from simulator.engine.costing import PP
from simulator.engine.course import Times
from simulator.engine.crossing import BothSides, Crossing
from simulator.engine.lane import Lane
from simulator.engine.links import Link
from simulator.engine.messages import Exchange
from simulator.engine.processors import Processors, bound_part
from simulator.engine.quiet_program import QuietProgram
from simulator.engine.senders import Hop, Send, Sender
from simulator.engine.stretch import Part
from simulator.engine.tasks import COMPUTE, LATER, Record, Task, Token
from simulator.engine.wiring import GATHER


class QuietDevice:
    """Runs quiet steps, a range of them whenever its compute stream comes to one.

    Where that is asked it notes when each step started and ended, and how long before its start a message for
    it was under way while the device stood idle: ``starts``, ``ends``, ``waited``, by step.
    """

    __slots__ = (
        "_arrivals",
        "_both",
        "_cause",
        "_counts",
        "_done",
        "_gather",
        "_hops",
        "_lane",
        "_left",
        "_processors",
        "_program",
        "_push",
        "_rank",
        "_rate",
        "_seconds",
        "_senders",
        "_sent",
        "_since",
        "_slowed",
        "_spent",
        "_start",
        "_steps",
        "ends",
        "free",
        "next",
        "senders",
        "starts",
        "stop",
        "version",
        "waited",
    )

    def __init__(self, lane: Lane, rank: int, program: QuietProgram, processors: Processors) -> None:
        streams = {route.stream for route in program.wiring.routes}
        self.senders = {stream: Sender(lane, rank, stream, keeps=program.notes) for stream in sorted(streams)}
        self._lane = lane
        self._push = lane.agenda.push
        self._arrivals = lane.arrivals
        self._rank = rank
        self._program = program
        self._steps = program.wiring.steps
        self._seconds = program.seconds
        self._senders = [self.senders[route.stream] for route in program.wiring.routes]
        self._hops = [Hop(task, lane.links_of(task)) for task in program.hops]
        self._processors = processors
        self.next = self.stop = 0
        self.free = 0.0  # when the step before ended
        self._start = 0.0
        self._slowed = False  # the action under way, by collectives at any time of it
        self._left = self._since = 0.0  # of one that is: seconds at its own rate, brought up to a time
        self._rate = 1.0
        self._gather: Crossing | None = None
        self._both: BothSides | None = None  # of the exchange under way
        self._counts: defaultdict[int, int] = defaultdict(int)  # by work
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._done = Ending(lane.agenda.env)
        self.version = 0
        self._cause: Send | None = None
        self._sent: dict[str, Times] = {}  # by stream, once all is over
        noted = len(self._steps) if program.notes else 0
        self.starts, self.ends, self.waited = [nan] * noted, [nan] * noted, [nan] * noted
        lane.devices.append(self)
        lane.posts.update(dict.fromkeys(program.posts, self))
        processors.listener = self._processors_changed

    def may_leap(self, least: int) -> bool:
        """Whether it has so many steps before it, and nothing has slowed down what is under way."""
        return (
            self.stop - self.next >= least
            and not self._slowed
            and (self._gather is None or self._gather.transfer is None)
            and (self._both is None or self._both.undisturbed)
            and not any(sender.waits for sender in self.senders.values())
        )

    def lengths(self) -> list[float]:
        """Seconds of works, the gather, exchanges and hops (:class:`simulator.engine.course.Lengths`)."""
        return [*self._seconds, *(task.seconds if task else 0.0 for task in self._transfers())]

    def links(self) -> list[Sequence[Link]]:
        """The links that each of these crosses."""
        crossed = [self._lane.links_of(task) if task else () for task in self._transfers()]
        return [*((),) * len(self._seconds), *crossed]

    def _transfers(self) -> list[Task | None]:
        exchanges = map(self._program.exchanges.__getitem__, self._program.wiring.exchanges)
        return [self._program.gather, *exchanges, *self._program.hops]

    @property
    def gather_category(self) -> str:
        """As what gathers of scattered messages count."""
        return self._program.category(GATHER)

    def leap(self, part: Part) -> None:
        """Takes steps as done."""
        for work, count in part.works.items():
            self._counts[work] += count
        for category, seconds in part.spent.items():
            self._spent[category] += seconds
        if self.starts:
            done = slice(self.next, part.stop)
            self.starts[done], self.ends[done] = part.starts.tolist(), part.ends.tolist()
            self.waited[done] = part.waited.tolist()
        self.next = part.stop
        self.free = float(part.ends[-1])
        self._communicated()

    def set_out_again(self) -> None:
        """Begins its next step anew, unless that is communication under way."""
        if self._gather is None and self._both is None:
            self.resume()

    def dispatch(self, at: float, route: int, token: Token) -> None:
        """Sends a message of a step that has been taken as done."""
        self._senders[route].send(at, self._hops[route], token)

    def sent_already(self, route: int, token: Token, start: float, end: float, since: float) -> Send:
        """The record of a message that has arrived, behind others since some time."""
        sender, task = self._senders[route], self._hops[route].task
        send = Send(sender, task, token, start)
        send.end = end
        if since < start:
            send.since = since
            send.cause = Record(self._rank, sender.name, task._replace(seconds=start - since), since, None)
        return send

    def run(self, task: Task, previous: Record | None) -> Generator[simpy.Event, object, Record]:
        """Runs the steps of a task, for the process of its stream. Its record's profile breaks them down."""
        assert task.steps is not None
        begun = self._lane.agenda.env.now
        self.next, self.stop = task.steps.start, task.steps.stop
        self._counts.clear()
        self._spent.clear()
        self._done = Ending(self._lane.agenda.env)
        self.free = begun
        self._try()
        yield self._done
        profile = self._breakdown()
        task = task._replace(seconds=self.free - begun, profile=profile)
        record = Record(self._rank, COMPUTE, task, begun, previous)
        record.end = self.free
        return record

    def counts_on(self, token: Token) -> bool:
        """Implements :class:`simulator.engine.lane.Device`."""
        waits = self._steps[self.next].waits if self.next < self.stop else ()
        return self._start < inf and self._gather is None and token in waits

    def resume(self) -> None:
        """Implements :class:`simulator.engine.lane.Device`."""
        self.version += 1
        self._slowed = False
        self._try()

    def _try(self) -> None:
        """Starts the next step as soon as its messages have come, if it is known when."""
        work, waits, _, exchange = self._steps[self.next]
        start, cause = self.free, None
        arrivals = self._arrivals
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
            if start > self.free:
                self._push(start, self)
            else:
                self._start_gather(start)
        elif self._processors.held:
            self._slow_down(work, start)
        else:
            self._push(start + self._seconds[work], self)

    def _exchange(self, exchange: Exchange) -> None:
        meeting = self._lane.meeting
        other = meeting.pop(exchange.key, None)
        if other is None:
            meeting[exchange.key] = self
        else:
            BothSides(self._lane, self.free, (other, self))

    def side(self) -> Task:
        """What it does in its current exchange."""
        exchange = self._steps[self.next].exchange
        assert exchange is not None
        return self._program.exchanges[exchange.side(self._rank)]

    def exchanges(self, both: BothSides, start: float, end: float) -> None:
        """The other side has come."""
        self._both, self._start = both, start
        self._push(end, self)

    def exchange_retimed(self, both: BothSides, end: float) -> None:
        """The exchange ends at another time, unless it is over already."""
        if self._both is both:
            self._ends_at(end)

    def _ends_at(self, end: float) -> None:
        self.version += 1
        self._push(end, self)

    def _start_gather(self, at: float) -> None:
        """The message has come, scattered over the group."""
        task = self._program.gather
        assert task is not None
        self._gather = Crossing(task, at, self._gather_retimed)
        self._gather.begin(self._lane)
        self._push(self._gather.end, self)

    def _gather_retimed(self, gather: Crossing) -> None:
        """A gather ends at another time; one that has ended may be told so at that very instant."""
        if gather is self._gather:
            self._ends_at(gather.end)

    def _slow_down(self, work: int, now: float) -> None:
        """From now on an action, which may begin later, runs at the rate of the processors left."""
        if not self._slowed:
            self._slowed = True
            self._since, self._left, self._rate = self._start, self._seconds[work], 1.0
        self._left -= max(0.0, now - self._since) * self._rate
        self._since = max(self._since, now)
        bound = bound_part(self._program.profiles[work], self._seconds[work])
        self._rate = 1.0 - self._processors.held * bound
        self._push(self._since + self._left / self._rate, self)

    def _processors_changed(self) -> None:
        """Collectives hold more or fewer processors from now on."""
        if self._start < inf and self.next < self.stop:
            work = self._steps[self.next].work
            if work >= 0:
                self.version += 1
                self._slow_down(work, self._lane.agenda.env.now)

    def fire(self, at: float) -> None:
        """Implements :class:`simulator.engine.agenda.Owner`: the current step has ended."""
        work, _, sends, _ = self._steps[self.next]
        if work == GATHER and self._gather is None:
            self._start_gather(at)
            return
        waited = 0.0
        if self._start > self.free:
            until = self._start if self._cause is None else max(self.free, self._cause.since)
            waited = self._start - until
            self._spent[PP] += waited
            self._spent[BUBBLE] += until - self.free
        if work < 0 or self._slowed:
            self._account(work, at)
        else:
            self._counts[work] += 1
        self.free = at
        start, self._start = self._start, inf  # what it sends may retime what ends now: this step has ended
        for route, token, _ in sends:
            self._senders[route].send(at, self._hops[route], token)
        if self.starts:
            self.starts[self.next], self.ends[self.next], self.waited[self.next] = start, at, waited
        self.next += 1
        if self.next < self.stop:
            self._try()
        else:
            self._done.happen(at)

    def _account(self, work: int, at: float) -> None:
        """What a step that is not an action has taken, or an action beside collectives."""
        if work < 0:
            self._communicated()
            self._spent[self._program.category(work)] += at - self._start
            return
        self._counts[work] += 1
        self._slowed = False
        stretch = at - self._start - self._seconds[work]
        if stretch > ROUNDING * at:
            self._spent[BESIDE] += stretch

    def _communicated(self) -> None:
        """What it has waited for is over, if it was communication."""
        if self._both is not None:
            self._both.leave()
        self._gather = self._both = None

    def close(self) -> None:
        """Implements :class:`simulator.engine.lane.Device`."""
        self._processors.listener = None
        for sender in self.senders.values():
            self._sent[sender.name] = sender.times
            sender.last = sender.kept = None

    def post(self, at: float, token: Token) -> None:
        """Implements :class:`simulator.engine.lane.Device`."""
        sent = self._program.posts[token]
        self._senders[sent.route].send(at, self._hops[sent.route], sent.token)

    def sent(self, stream: str) -> Times:
        """When each message of a stream left and arrived, where that is noted: rows of two."""
        return self._sent[stream]

    def _breakdown(self) -> dict[str, float]:
        total = defaultdict(float, self._spent)
        for work, count in self._counts.items():
            for category, seconds in self._program.profiles[work].items():
                total[category] += count * seconds
        return dict(total)
