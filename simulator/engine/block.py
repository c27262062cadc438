"""Blocks: segments closed under interaction, replayed once per distinct segment and re-used as timed work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple, TypeAlias, cast

from cachetools import LRUCache

from simulator.engine.attribution import JITTER, breakdown
from simulator.engine.contention import slowed
from simulator.engine.costing import OperatorCosts
from simulator.engine.jitter import NO_WAITS, Spread, Waits, exposed_positions
from simulator.engine.launches import Launches
from simulator.engine.overlap import interleaved
from simulator.engine.replay import Replay, replay
from simulator.engine.segments import action_segments
from simulator.engine.tasks import COMPUTE, Meeting, Profile, Task, Token
from simulator.graph.operators import Axis, Collective, Gemm, GroupedGemm, SendRecv
from simulator.partition.layer_share import LayerShare
from simulator.partition.segment import HOST, Segment, Step
from simulator.schedule.actions import Kind


class Block(NamedTuple):
    """A replayed segment."""

    seconds: float
    profile: Profile  # category → seconds of the compute stream
    variance: float  # of ``seconds``, from one group of ranks to the next
    carries: Mapping[str, float]  # bytes by kind of link
    presses: Mapping[str, float]  # the most bytes/s by kind of link


class Stretch(NamedTuple):
    """Segments in a row that are replayed alike: what runs beside them slows all of them equally."""

    segments: tuple[Segment, ...]
    block: Block  # of all of them


class Placed(NamedTuple):
    """A task and the stream it goes to."""

    stream: str
    task: Task


Key: TypeAlias = tuple[Hashable, ...]
EXPANDED = 256  # segments that are kept as tasks, about 10 kB each


@dataclass(frozen=True, slots=True)
class Replayed:
    """What has been found out about segments, by segment and by where the groups sit that meet in it.

    Segments are known by identity, which is fast; keeping them keeps their identities unique.
    """

    blocks: dict[Key, Block] = field(default_factory=dict)
    quickest: dict[Key, Segment] = field(default_factory=dict)
    joint: dict[Key, Segment] = field(default_factory=dict)
    axes: dict[int, tuple[Segment, tuple[Axis, ...]]] = field(default_factory=dict)

    def axes_of(self, segment: Segment) -> tuple[Axis, ...]:
        """The groups that communicate in a segment, whichever of its ways is taken."""
        found = self.axes.get(id(segment))
        if found is None:
            steps = (*segment.steps, *(step for way in segment.ways for step in way.steps))
            axes = {step.op.axis for step in steps if isinstance(step.op, Collective | SendRecv)}
            found = self.axes[id(segment)] = (segment, tuple(sorted(axes)))
        return found[1]


class Blocks:
    """Replays segments, each distinct one once. ``spread``: jitter, whose delays stand before collectives.

    ``replayed`` may be in common with other blocks whose costs differ by where groups sit alone, which
    ``place`` says for each axis.
    """

    def __init__(
        self,
        costs: OperatorCosts,
        spread: Spread | None = None,
        replayed: Replayed | None = None,
        place: Callable[[Axis], Hashable] = lambda axis: None,
    ) -> None:
        self.costs = costs
        self.spread = spread
        self._replayed = replayed or Replayed()
        self._place = place
        self._known: dict[int, tuple[Segment, Block]] = {}
        self._actions: dict[tuple[int, int], tuple[Sequence[LayerShare], Block]] = {}
        self._expanded: LRUCache[tuple[int, bool], tuple[Segment, list[Placed]]] = LRUCache(EXPANDED)
        self._stretches: dict[tuple[int, ...], tuple[Sequence[LayerShare], list[Stretch]]] = {}

    def block(self, segment: Segment) -> Block:
        """The length of a segment run from idle to idle, and where the time went."""
        known = self._known.get(id(segment))
        if known is None:
            key, blocks = self._key(segment), self._replayed.blocks
            found = blocks.get(key)
            if found is None:
                found = blocks[key] = self._replay(self.quickest(segment))
            known = self._known[id(segment)] = (segment, found)
        return known[1]

    def quickest(self, segment: Segment) -> Segment:
        """The segment with those of its ways taken that shorten it."""
        if not segment.ways:
            return segment
        key, quickest = self._key(segment), self._replayed.quickest
        found = quickest.get(key)
        if found is None:
            found = quickest[key] = self._choose(segment)
        return found

    def _key(self, *segments: Segment) -> Key:
        places = {axis: self._place(axis) for each in segments for axis in self._replayed.axes_of(each)}
        return (*map(id, segments), *places.values())

    def _choose(self, segment: Segment) -> Segment:
        quicker = []
        for way in segment.ways:
            plain, other = segment.versions(way)
            if self._replay(other).seconds < self._replay(plain).seconds:
                quicker.append(way)
        plain, chosen = segment.taking(()), segment.taking(quicker)
        return chosen if self._replay(chosen).seconds < self._replay(plain).seconds else plain

    def stretches(self, layers: Sequence[LayerShare], kind: Kind, start: int, stop: int) -> list[Stretch]:
        """The same of layers [start, stop) alone, in stretches."""
        key = (id(layers), int(kind), start, stop)
        known = self._stretches.get(key)
        if known is None:
            found = self.alike(action_segments(layers[start:stop], kind))
            known = self._stretches[key] = (layers, found)
        return known[1]

    def alike(self, segments: Iterable[Segment]) -> list[Stretch]:
        """Segments in stretches."""
        return [Stretch(run, _in_a_row([(block, len(run))])) for block, run in self._runs(segments)]

    def action(self, layers: Sequence[LayerShare], kind: Kind) -> Block:
        """All of an action as one block; ``layers`` are known by identity, too."""
        key = (id(layers), int(kind))  # an enum member's own hash is slow
        known = self._actions.get(key)
        if known is None:
            known = self._actions[key] = (layers, self.chain(action_segments(layers, kind)))
        return known[1]

    def chain(self, segments: Iterable[Segment]) -> Block:
        """Segments one after the other as one block."""
        return _in_a_row([(block, len(run)) for block, run in self._runs(segments)])

    def _runs(self, segments: Iterable[Segment]) -> Iterator[tuple[Block, tuple[Segment, ...]]]:
        """Segments that take the same, as many as come in a row."""
        for block, run in groupby(segments, self.block):
            yield block, tuple(run)

    def joint(self, forward: Segment, backward: Segment, *, delay_wgrad: bool) -> Segment:
        """A forward and a backward interleaved, where both communicate between experts' ranks."""
        key, joint = (delay_wgrad, *self._key(forward, backward)), self._replayed.joint
        found = joint.get(key)
        if found is None:
            parts = (self.quickest(forward), self.quickest(backward))
            found = joint[key] = interleaved(*parts, self.costs, delay_wgrad=delay_wgrad)
        return found

    def operators(self, segment: Segment, label: Token, *, meets: bool) -> list[Placed]:
        """A segment's quickest version as tasks, operator by operator.

        ``label`` tells their tokens from those of its other runs; with ``meets`` collectives are meetings.
        """
        key = (id(segment), meets)
        known = self._expanded.get(key)
        if known is None:
            quickest = self.quickest(segment)
            delays = self.waits(quickest).delays
            placed = expand(quickest, self.costs, "segment", rendezvous=meets, delays=delays)
            known = self._expanded[key] = (segment, placed)
        return [Placed(stream, _labelled(task, label)) for stream, task in known[1]]

    def waits(self, segment: Segment) -> Waits:
        """What jitter does to a segment."""
        if self.spread is None:
            return NO_WAITS
        waits = self.spread.waits(segment, self.costs, range(len(segment.steps)))
        exposed = exposed_positions(self._run(segment, waits.delays))
        return self.spread.waits(segment, self.costs, exposed)

    def _replay(self, segment: Segment) -> Block:
        waits = self.waits(segment)
        run = self._run(segment, waits.delays)
        profile = breakdown(run.stream(0, COMPUTE), run.end, HOST)
        return Block(run.end, profile, waits.variance, *_on_links(segment, self.costs))

    def _run(self, segment: Segment, delays: Mapping[int, float]) -> Replay:
        streams: dict[str, list[Task]] = {}
        for stream, task in expand(segment, self.costs, "block", rendezvous=False, delays=delays):
            streams.setdefault(stream, []).append(task)
        communicates = any(task.flow for tasks in streams.values() for task in tasks)
        return replay({0: streams}, self.costs.capacities if communicates else None)


def _in_a_row(blocks: Iterable[tuple[Block, int]]) -> Block:
    """Blocks one after the other, each so many times, as one."""
    profile: dict[str, float] = {}
    carries: dict[str, float] = {}
    presses: dict[str, float] = {}
    seconds = variance = 0.0
    for block, times in blocks:
        seconds += times * block.seconds
        variance += times * block.variance
        for category, spent in block.profile.items():
            profile[category] = profile.get(category, 0.0) + times * spent
        for kind, carried in block.carries.items():
            carries[kind] = carries.get(kind, 0.0) + times * carried
            presses[kind] = max(presses.get(kind, 0.0), block.presses[kind])
    return Block(seconds, profile, variance, carries, presses)


def _on_links(segment: Segment, costs: OperatorCosts) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes of a segment by kind of link, and the most bytes/s that all its streams together ask of it."""
    carried: defaultdict[str, float] = defaultdict(float)
    rates: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for step in segment.steps:
        flow = costs.flow(step.op) if isinstance(step.op, Collective | SendRecv) else None
        for kind, rate in flow.demands if flow is not None else ():
            carried[kind] += rate * costs.cost(step.op).seconds
            rates[kind][step.stream] = max(rate, rates[kind].get(step.stream, 0.0))
    return dict(carried), {kind: sum(streams.values()) for kind, streams in rates.items()}


def expand(
    segment: Segment,
    costs: OperatorCosts,
    label: Token,
    *,
    rendezvous: bool,
    delays: Mapping[int, float] = MappingProxyType({}),
) -> list[Placed]:
    """A segment as tasks, between two zero-length marks on the compute stream.

    ``begin`` lets communication start no earlier than the segment; ``join`` waits for all streams, and for
    the host where launching the kernels takes longer than running them. ``rendezvous`` makes collectives
    meetings of their group (for simulations of every rank), keyed by axis and label. A step on the host's
    stream is a synchronisation: what follows it is launched after it, and has no lead over the kernels
    then, so each of them waits until it is issued. ``delays``: by position, how much later communication
    starts than on a rank by itself.
    """
    begin, join = (label, "begin"), (label, "join")
    placed = [Placed(COMPUTE, Task("begin", HOST, 0.0, signal=begin))]
    last: dict[str, Token] = {}
    host = Launches(costs.host, begin)
    for index, step in enumerate(segment.steps):
        cost, token = costs.cost(step.op), (label, index)
        waits: tuple[Token, ...] = tuple((label, position) for position in step.waits)
        if step.stream == HOST:
            placed.append(Placed(HOST, host.synchronise((label, index, "launched"), token)))
            cost = cost._replace(category=HOST, seconds=cost.seconds + costs.host.kernel_s)
        host.take(step, cost.issue_s)
        if host.awaited(step):
            placed.append(Placed(HOST, host.launch((label, index, "issued"))))
            waits = (*waits, (label, index, "issued"))
        if step.stream != COMPUTE and not waits:
            waits = (begin,)
        meeting = flow = None
        if isinstance(step.op, Collective | SendRecv):
            meeting = Meeting((step.op.axis, token), 0) if rendezvous else None
            flow = costs.flow(step.op)
        seconds = _contended(cost.seconds, step, segment, costs)
        if index in delays:
            placed.append(_slowest_rank(delays[index], waits, (label, index, JITTER), index))
            waits = ((label, index, JITTER),)
        task = Task(step.op.name, cost.category, seconds, waits, token, meeting, None, flow)
        placed += _with_delay(
            step.stream, task, seconds * cost.delay_s / cost.seconds if cost.delay_s else 0.0
        )
        last[step.stream] = token
    tokens = tuple(token for stream, token in last.items() if stream != COMPUTE)
    end = len(segment.steps)
    if end in delays:
        placed.append(_slowest_rank(delays[end], (last[COMPUTE],), (label, JITTER), end))
        tokens = (*tokens, (label, JITTER))
    placed.append(Placed(HOST, host.launch((label, HOST))))
    placed.append(Placed(COMPUTE, Task("join", HOST, 0.0, (*tokens, (label, HOST)), join)))
    return placed


def _labelled(task: Task, label: Token) -> Task:
    """A task of :func:`expand` with another label in its tokens."""
    meeting, signal = task.meeting, task.signal and _with_label(task.signal, label)
    if meeting is not None:
        axis, token = cast("tuple[Axis, Token]", meeting.key)
        meeting = Meeting((axis, _with_label(token, label)), meeting.members)
    waits = tuple([_with_label(token, label) for token in task.waits])
    return Task(task.name, task.category, task.seconds, waits, signal, meeting, None, task.flow)


def _with_label(token: Token, label: Token) -> Token:
    return (label, *cast("tuple[Token, ...]", token)[1:])


def _slowest_rank(seconds: float, waits: tuple[Token, ...], signal: Token, position: int) -> Placed:
    """How much later the slowest rank is ready; on a stream of its own, since it counts from when one is."""
    return Placed(f"{JITTER} {position}", Task("slowest rank", JITTER, seconds, waits, signal))


def _with_delay(stream: str, task: Task, delay_s: float) -> Iterator[Placed]:
    """A task, and what a slow rank takes longer for it."""
    if not delay_s:
        yield Placed(stream, task)
        return
    yield Placed(stream, task._replace(signal=None))
    yield Placed(stream, Task(task.name, JITTER, delay_s, (), task.signal))


def _contended(seconds: float, step: Step, segment: Segment, costs: OperatorCosts) -> float:
    """A product's length without the processors that communication beside it holds."""
    if not step.beside or not isinstance(step.op, Gemm | GroupedGemm):
        return seconds
    beside = sum(costs.cost(segment.steps[other].op).seconds for other in step.beside)
    return slowed(seconds, beside, costs.communication_share)
