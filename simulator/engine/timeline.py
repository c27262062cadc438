"""A replay told for pictures: which action each stretch of compute belongs to, and what let what begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from simulator.details import Arrow, Work
from simulator.engine.messages import Pipeline
from simulator.engine.replay import Replay
from simulator.engine.tasks import COMPUTE, Record, Token
from simulator.partition.segment import HOST
from simulator.schedule.actions import Action, Order

Span: TypeAlias = tuple[Action, float, float]


def shown(events: Replay) -> Iterator[Record]:
    """The records that take time, in the order in which a timeline lists them."""
    for records in events.records.values():
        for record in records:
            if record.end > record.start:
                yield record


def work(
    events: Replay, orders: Sequence[Order], pipeline: Pipeline, *, ranks_per_device: int = 1
) -> Iterator[Work]:
    """The pieces of every action, device by device, in order of time.

    ``ranks_per_device`` is 1 where a class stands for all ranks of a device; otherwise the device's first
    rank is shown.
    """
    for device, order in enumerate(orders):
        records = events.stream(device * ranks_per_device, COMPUTE)
        begin = 0
        for action in order:
            end = _last(records, begin, [pipeline.done(each) for each in action.parts], ranks_per_device > 1)
            for each, start_s, end_s in _joined(_spans(records[begin:end], action.parts)):
                yield Work(
                    device=device,
                    kind=each.kind.name,
                    stage=each.stage,
                    microbatch=each.microbatch,
                    direction=each.direction,
                    start_s=start_s,
                    end_s=end_s,
                )
            begin = end


def _last(records: Sequence[Record], begin: int, done: Sequence[Token], scoped: bool) -> int:
    """Where the records of an action stop: after all of its tokens."""
    left = set(done)
    for index in range(begin, len(records)):
        signal = records[index].task.signal
        left.discard(signal[1] if scoped and isinstance(signal, tuple) else signal)
        if not left:
            return index + 1
    return len(records)


def _spans(records: Sequence[Record], actions: Sequence[Action]) -> Iterator[Span]:
    """Stretches of the actions' own work: as one task each, or operator by operator after a mark."""
    names = {f"{each.kind.name}{each.microbatch}": (each,) for each in actions}
    since: tuple[tuple[Action, ...], float] | None = None
    for record in records:
        name = record.task.name
        found = tuple(actions) if name == "pair" or ", " in name else names.get(name)
        if found is None:
            continue
        if since is not None:
            yield from ((each, since[1], record.start) for each in since[0])
        since = (found, record.start) if record.end == record.start else None
        if since is None:
            yield from ((each, record.start, record.end) for each in found)
    if since is not None and records[-1].end > since[1]:
        yield from ((each, since[1], records[-1].end) for each in since[0])


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Stretches of one action that touch, put together."""
    joined: list[Span] = []
    last: dict[Action, int] = {}
    for action, start, end in spans:
        index = last.get(action)
        if index is not None and joined[index][2] == start:
            joined[index] = (action, joined[index][1], end)
        else:
            last[action] = len(joined)
            joined.append((action, start, end))
    return joined


def arrows(events: Replay) -> Iterator[Arrow]:
    """From compute to the communication it starts, and from communication to what waits for it.

    Tasks without length are not shown; an arrow leaves from what came before one, and reaches what comes
    after it.
    """
    position = {id(record): index for index, record in enumerate(shown(events))}
    signalled: dict[Token, tuple[Record, int | None]] = {}  # and what was shown last
    for records in events.records.values():
        last: int | None = None
        for record in records:
            if record.task.begun is not None:
                signalled[record.task.begun] = (record, last)
            last = position.get(id(record), last)
            if record.task.signal is not None:
                signalled[record.task.signal] = (record, last)
    for (rank, stream), records in events.records.items():
        if stream == HOST:
            continue
        following: int | None = None
        for record in reversed(records):
            following = position.get(id(record), following)
            if following is None:
                continue
            for token in record.task.waits:
                cause, source = signalled[token]
                if source is None or (cause.rank, cause.stream) == (rank, stream) or cause.stream == HOST:
                    continue
                message = cause if cause.stream != COMPUTE else record
                yield Arrow(
                    name=message.task.name, category=message.task.category, source=source, target=following
                )
    yield from _meetings(events, position)


def _meetings(events: Replay, position: dict[int, int]) -> Iterator[Arrow]:
    """Between the members of each rendezvous, in the order of their ranks."""
    met: dict[object, Record] = {}
    for records in events.records.values():
        for record in records:
            meeting = record.task.meeting
            if meeting is None or id(record) not in position:
                continue
            other = met.get(meeting.key)
            if other is not None:
                yield Arrow(
                    name=record.task.name,
                    category=record.task.category,
                    source=position[id(other)],
                    target=position[id(record)],
                )
            met[meeting.key] = record
