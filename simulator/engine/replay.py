"""The discrete-event core: one SimPy process per stream, in issue order, waiting for tokens and meetings."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import simpy

from simulator.engine.agenda import Agenda
from simulator.engine.course import Course
from simulator.engine.express import Express
from simulator.engine.lane import Lane
from simulator.engine.links import Capacities, SharedLinks
from simulator.engine.messages import is_message
from simulator.engine.processors import Processors
from simulator.engine.quiet import QuietDevice
from simulator.engine.quiet_program import QuietProgram
from simulator.engine.tasks import COMPUTE, LATER, Meeting, Record, Streams, Task, Token


class DeadlockError(RuntimeError):
    """Streams that wait for something that never happens."""


@dataclass(slots=True)
class Replay:
    """What happened. ``records`` are grouped by (rank, stream), each in order of time.

    ``capacities``: of the links, where they were shared. Ranges of ``quiet`` steps are records.
    """

    records: dict[tuple[int, str], list[Record]] = field(default_factory=dict)
    capacities: Capacities = field(default_factory=dict)
    quiet: dict[int, QuietDevice] = field(default_factory=dict)

    @property
    def end(self) -> float:
        """When the last task ended."""
        return max((records[-1].end for records in self.records.values() if records), default=0.0)

    def stream(self, rank: int, stream: str) -> list[Record]:
        """The records of one stream of a rank, empty where it has none."""
        return self.records.get((rank, stream), [])


class _Board:
    """Tokens that have been signalled, and the events of those who wait for one that has not."""

    __slots__ = ("_env", "_lane", "_waiting", "arrived", "signalled")

    def __init__(self, env: simpy.Environment, lane: Lane | None) -> None:
        self._env = env
        self._lane = lane
        self._waiting: dict[Token, simpy.Event] = {}
        self.signalled: dict[Token, Record] = {}
        self.arrived: dict[object, tuple[int, simpy.Event]] = {}

    def expect(self, token: Token) -> simpy.Event:
        """The event of a token that has not been signalled yet."""
        if self._lane is not None and is_message(token):
            return self._lane.watch(token)
        event = self._waiting.get(token)
        if event is None:
            event = self._waiting[token] = self._env.event()
        return event

    def signal(self, token: Token, record: Record) -> None:
        """Wakes whoever waits for the token."""
        self.signalled[token] = record
        event = self._waiting.pop(token, None)
        if event is not None:
            event.succeed(record)
        if self._lane is not None:
            self._lane.signalled(token)

    def arrive(self, meeting: Meeting, cause: Record | None) -> simpy.Event:
        """The event that fires, with the last arrival's cause, when all members have come."""
        count, event = self.arrived.pop(meeting.key, (0, None))
        event = event or self._env.event()
        if count + 1 == meeting.members:
            event.succeed(cause)
        else:
            self.arrived[meeting.key] = (count + 1, event)
        return event

    def unmet(self) -> list[object]:
        """What somebody still waits for."""
        return [*self._waiting, *self.arrived, *(self._lane.unmet() if self._lane is not None else ())]


@contextmanager
def paused_collector() -> Iterator[None]:
    """Holds the cyclic garbage collector off.

    A replay makes millions of small tuples and no cycles worth collecting; scanning them again and again
    costs a third of the time of a large step.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def replay(
    ranks: Mapping[int, Streams],
    capacities: Capacities | None = None,
    quiet: Mapping[int, QuietProgram] | None = None,
    course: Callable[[], Course] | None = None,
) -> Replay:
    """Runs all streams of all ranks to their end.

    ``capacities``: of links; without them no transfer slows another down. ``quiet``: of ranks whose tasks
    stand for steps, and ``course`` through these, where there are enough to make it worth while.
    Ties in time are broken by the order of ``ranks`` and of their streams, so equal input gives equal output.
    Raises :class:`DeadlockError` naming a few of the things waited for in vain.
    """
    env = simpy.Environment()
    agenda = Agenda(env)
    links = SharedLinks(agenda, capacities) if capacities else None
    lane = Lane(agenda, links) if quiet else None
    board = _Board(env, lane)
    result = Replay(capacities=capacities or {})
    for rank, streams in ranks.items():
        processors = Processors(agenda)
        device = None
        if lane is not None and quiet is not None:
            device = result.quiet[rank] = QuietDevice(lane, rank, quiet[rank], processors)
        for stream, tasks in streams.items():
            records = result.records[rank, stream] = []
            env.process(_run_stream(env, board, links, processors, device, rank, stream, tasks, records))
    if lane is not None and course is not None:
        agenda.shortcut = Express(lane, list(result.quiet.values()), course)
    agenda.run()
    unfinished = sum(
        len(result.records[r, s]) < len(t) for r, streams in ranks.items() for s, t in streams.items()
    )
    if unfinished:
        raise DeadlockError(f"{unfinished} streams wait in vain, for example for {board.unmet()[:3]}")
    if lane is not None:
        agenda.shortcut = None
        lane.close()
    if links is not None:
        links.close()
    return result


def _run_stream(
    env: simpy.Environment,
    board: _Board,
    links: SharedLinks | None,
    processors: Processors,
    device: QuietDevice | None,
    rank: int,
    stream: str,
    tasks: list[Task] | Any,
    records: list[Record],
) -> Generator[simpy.Event, Any, None]:
    signalled = board.signalled
    previous: Record | None = None
    for task in tasks:
        if task.steps is not None and device is not None:
            previous = yield from device.run(task, previous)
            records.append(previous)
            continue
        cause = previous
        for token in task.waits:
            awaited = signalled.get(token) or (yield board.expect(token))
            if cause is None or awaited.end > cause.end * LATER:
                cause = awaited
        if task.meeting is not None:
            cause = yield board.arrive(task.meeting, cause)
        previous = Record(rank, stream, task, env.now, cause)
        if task.begun is not None:
            board.signal(task.begun, previous)
        if task.flow is not None or task.holds:
            yield from _transfer(env, links, processors if stream != COMPUTE else None, task)
            previous.end = env.now
        elif task.seconds and stream == COMPUTE and task.meeting is None:
            if (yield from processors.run(task)):
                previous.end = env.now
        elif task.seconds:
            yield env.timeout(task.seconds)
        if task.meeting is not None and task.meeting.ends_together:
            yield board.arrive(Meeting(("end", task.meeting.key), task.meeting.members), None)
            previous.end = env.now
        records.append(previous)
        if task.signal is not None:
            board.signal(task.signal, previous)


def _transfer(
    env: simpy.Environment, links: SharedLinks | None, processors: Processors | None, task: Task
) -> Generator[simpy.Event, Any, None]:
    """Runs communication that crosses links or, beside compute, holds processors."""
    if processors is not None and task.holds:
        processors.hold(task.holds)
    if task.flow is not None and links is not None:
        yield from links.cross(links.named(task.flow.links), task)
    else:
        yield env.timeout(task.seconds)
    if processors is not None and task.holds:
        processors.hold(-task.holds)
