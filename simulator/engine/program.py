"""One device's program: the actions of its schedule as tasks on streams, in block or operator detail."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from simulator.engine.attribution import JITTER
from simulator.engine.block import Block, Blocks, Placed, Stretch
from simulator.engine.bucketed import BucketedTraffic
from simulator.engine.costing import DATA_AXES, PP
from simulator.engine.data_traffic import Before, DataTraffic, NoTraffic, Piece
from simulator.engine.data_work import DataWork
from simulator.engine.device_costs import DeviceCosts
from simulator.engine.finish import PAIR, finish_step, norm_of_all, norm_so_far
from simulator.engine.fully_sharded import FullyShardedTraffic
from simulator.engine.hops import Hops
from simulator.engine.jitter import Spread
from simulator.engine.messages import Exchange, Pipeline
from simulator.engine.segments import action_segments, paired_segments
from simulator.engine.tasks import COMPUTE, Meeting, Streams, Task, Token
from simulator.engine.uneven import loaded, loaded_operators
from simulator.engine.wiring import steady_actions
from simulator.partition.chunk import ChunkShare
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import RunPlan
from simulator.partition.segment import Segment
from simulator.schedule.actions import Action, Kind, Order

NormKind = Literal["all", "so far", "none"]
NORM_BYTES = 4.0  # one fp32 scalar
FULL = 1 + 1e-9  # of a link
LETTERS = "FBIW"  # by kind of action


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramOptions:
    """How the software runs a step, and in how much detail it is replayed."""

    overlap_grad_reduce: bool
    overlap_param_gather: bool
    overlap_p2p: bool
    norm_s: float  # the gradient norm's scalar all-reduce over the world
    every_operator: bool
    overlap_experts: bool = False  # pairs of a forward and a backward hide each other's all-to-alls
    delay_wgrad: bool = False
    overlap_warmup_flush: bool = True
    norm: NormKind = "all"  # which devices' gradient norm an update waits for
    meets: bool = True  # collectives are meetings of their groups; else a device stands for all their ranks


@dataclass(slots=True)
class DeviceProgram:
    """Builds the streams of one device.

    Meetings of a layout's group have 0 members: :mod:`simulator.engine.world` fills them in, or drops them
    where one device stands for the whole group; where options say so beforehand, there are none.
    """

    plan: RunPlan
    pipeline: Pipeline
    blocks: Blocks
    work: DataWork
    hops: Hops
    options: ProgramOptions
    device: int
    streams: defaultdict[str, list[Task]] = field(default_factory=lambda: defaultdict(list, {COMPUTE: []}))
    issued: dict[int, dict[str, int]] = field(default_factory=dict)
    _pairs: dict[tuple[int, int, int], Block] = field(default_factory=dict)
    _costs: DeviceCosts = field(init=False)
    _traffic: DataTraffic = field(init=False)
    _room: Mapping[str, float] = field(
        default_factory=dict
    )  # bytes/s that data parallelism leaves, by kind of link
    _prepared: set[int] = field(default_factory=set)
    _regathers: bool = False
    _expanded: int = 0  # segments so far
    _updates: int = 0  # so far

    def __post_init__(self) -> None:
        self._costs = self.work.on(self.device, meets=self.options.meets)

    def build(
        self, order: Order, exchanges: Sequence[Sequence[Exchange]] | None, cuts: Sequence[int] = ()
    ) -> Streams:
        """Tasks by stream up to the next update of the weights, after those of the updates before.

        Args:
            order: the device's actions.
            exchanges: blocking ones before each action, where communication blocks.
            cuts: indices of actions, or the end: ``issued`` notes how many tasks each stream has before.
        """
        actions = list(_flat(order))
        self._begin(actions, {action.stage for action in actions})
        sent: tuple[Token, ...] = ()
        steady = steady_actions(order)
        for index, action in enumerate(order):
            if index in cuts:
                self._note_issued(index)
            waits = (*sent, *self._receive(action, exchanges[index] if exchanges is not None else None))
            self._act(action, waits)
            sent = self._send(action) if exchanges is None else ()
            if self.options.overlap_p2p and (self.options.overlap_warmup_flush or index in steady):
                sent = ()
        if len(order) in cuts:
            self._note_issued(len(order))
        if exchanges is not None:
            self._exchange(exchanges[-1])
        self._finish(sorted({action.stage for action in actions if action.kind is not Kind.F}))
        self._updates += 1
        return self.streams

    def _note_issued(self, index: int) -> None:
        self.issued[index] = {stream: len(tasks) for stream, tasks in self.streams.items()}

    def _begin(self, actions: Sequence[Action], stages: Iterable[int]) -> None:
        """What precedes the first action; ``actions`` are at least those that traffic meets."""
        self._traffic = self._data_traffic()
        self._room = self._beside_data(stages)
        self._regathers = self.plan.data.regathers
        self._prepared.clear()
        self._place(self._traffic.begin(actions))

    def _act(self, action: Action, waits: tuple[Token, ...]) -> None:
        if action.partner is None:
            self._compute(action, waits)
        elif not self._compute_together(action, waits):
            self._compute(action, waits)
            self._compute(action.partner, ())

    def _data_traffic(self) -> DataTraffic:
        if self.plan.data.fully_sharded:
            return FullyShardedTraffic(self.plan, self.work, self._costs)
        if self.plan.forward_only:
            return NoTraffic()
        return BucketedTraffic(
            self.plan,
            self.work,
            self._costs,
            overlap_gather=self.options.overlap_param_gather,
            overlap_reduce=self.options.overlap_grad_reduce,
            update=self._updates,
        )

    def _beside_data(self, stages: Iterable[int]) -> Mapping[str, float]:
        """What data parallelism leaves of links that it may use beside actions."""
        options, room = self.options, self.blocks.costs.capacities
        overlaps = options.overlap_grad_reduce or options.overlap_param_gather
        if not overlaps and not self.plan.data.fully_sharded:
            return {}
        return {
            kind: room[kind] * FULL - rate for kind, rate in self.work.presses(self._chunks(stages)).items()
        }

    def _add(self, stream: str, task: Task) -> None:
        self.streams[stream].append(task)

    def _place(self, placed: Iterable[Placed]) -> None:
        streams, spread = self.streams, self.blocks.spread
        for stream, task in placed:
            streams[stream].append(task)
            if spread is not None:
                self._jitter_of_groups(stream, spread)

    def _jitter_of_groups(self, stream: str, spread: Spread) -> None:
        """The ranks of a cell go on together: after the last of their collectives of data parallelism."""
        task = self.streams[stream][-1]
        late_s = spread.slowest_group_s(task.seconds)
        if late_s and task.meeting is not None and task.meeting.key[0] in DATA_AXES:  # type: ignore[index]
            mine = ("own group", task.signal)
            self.streams[stream][-1] = task._replace(signal=mine)
            self._add(f"{JITTER} {stream}", Task("slowest group", JITTER, late_s, (mine,), task.signal))

    def _compute_task(self, task: Task) -> None:
        self.streams[COMPUTE].append(task)

    def _compute_block(
        self,
        name: str,
        block: Block,
        waits: tuple[Token, ...],
        done: Token | None,
        begun: Token | None = None,
    ) -> None:
        seconds, profile, _, carries, _ = block
        task = Task(name, COMPUTE, seconds, waits, done, None, profile, None, 0.0, carries, None, begun)
        self.streams[COMPUTE].append(task)

    def _receive(self, action: Action, exchanges: Sequence[Exchange] | None) -> tuple[Token, ...]:
        """What an action waits for; blocking exchanges and gathers of scattered messages become tasks."""
        waits = self.pipeline.needs(action)
        if action.partner is not None:
            waits += self.pipeline.needs(action.partner)
        if exchanges is not None:
            self._exchange(exchanges)
            waits = ()
        gather = self.plan.message_gather
        if gather is not None:
            for each in action.parts:
                if self.pipeline.receives(each) is not None:
                    key = ("gather", *each[:4])
                    self._place([self._costs.collective(gather, COMPUTE, waits, key)])
                    waits = ()
        return waits

    def _exchange(self, exchanges: Sequence[Exchange]) -> None:
        for exchange in exchanges:
            self._compute_task(self._exchange_task(exchange))

    def _exchange_task(self, exchange: Exchange) -> Task:
        """This device's side: what it sends has links to cross, and both wait for the slower direction."""
        here, there = exchange.source, exchange.target
        if self.device == there:
            here, there = there, here
        seconds, flow = self.hops.hop(here, there)
        meeting = Meeting((PAIR, exchange.key), 2, ends_together=flow is not None)
        return Task(
            "exchange",
            PP,
            seconds,
            meeting=meeting,
            flow=flow if exchange.sends(self.device) else None,
        )

    def _send(self, action: Action) -> tuple[Token, ...]:
        """Sends an action's outputs beside compute; the tokens of their arrival, for who waits for it."""
        tokens = []
        for each in action.parts:
            way = self.hops.way(each)
            if way is not None:
                microbatch = (each.microbatch,)
                token = way.token + microbatch
                waits = (way.after + microbatch,)
                self._add(way.stream, Task("send", PP, way.seconds, waits, token, None, None, way.flow))
                tokens.append(token)
        return tuple(tokens)

    def _compute(self, action: Action, waits: tuple[Token, ...]) -> None:
        """An action's kernels, cut where data-parallel traffic meets them."""
        chunk = self.plan.chunks[action.stage]
        done = self.pipeline.done(action)
        forward = action.kind is Kind.F
        pieces = self._traffic.pieces(action)
        fresh = forward and chunk.has_preparation and self._is_fresh(action.stage)
        if pieces is None and not fresh and not self.options.every_operator:
            block = self._loaded(self.blocks.action(chunk.layers, action.kind), action, chunk.layers)
            self._compute_block(f"{LETTERS[action.kind]}{action.microbatch}", block, waits, done)
            return
        self._prepared.add(action.stage)
        ordered = pieces or (Piece(0, len(chunk.layers), ()),)
        for piece in ordered if forward else ordered[::-1]:
            before = self._traffic.before(action, piece, waits)
            self._place(before.placed)
            last = piece is ordered[-1 if forward else 0]
            end = done if last else ("piece", done, piece.start)
            self._run(action, piece, before, end, fresh=fresh)
            waits = ()
            self._place(self._traffic.after(action, piece, end))

    def _is_fresh(self, stage: int) -> bool:
        """Whether the next forward of a stage is the first one with its weights."""
        return self._regathers or stage not in self._prepared

    def _compute_together(self, action: Action, waits: tuple[Token, ...]) -> bool:
        """A pair's kernels interleaved, unless data-parallel traffic meets one of them (then it says no)."""
        other = action.partner
        if other is None or not self.options.overlap_experts:
            return False
        if any(self._traffic.pieces(each) is not None for each in (action, other)):
            return False
        if self.options.every_operator:
            segments = self._together(action, other)
            self._compute_task(Task("pair", COMPUTE, 0.0, waits))
            for segment in segments:
                self._place(self._operators(segment))
            self._compute_task(Task("done", COMPUTE, 0.0, (), self.pipeline.done(other)))
        else:
            key = (action.stage, other.stage, other.kind)
            block = self._pairs.get(key)
            if block is None:
                block = self._pairs[key] = self.blocks.chain(self._together(action, other))
            for each in (action, other):
                block = self._loaded(block, each, self.plan.chunks[each.stage].layers)
            name = f"F{action.microbatch}, {other.kind.name}{other.microbatch}"
            done = self.pipeline.done(other)
            self._compute_block(name, block, waits, done)
        self._compute_task(Task("done", COMPUTE, 0.0, (), self.pipeline.done(action)))
        return True

    def _together(self, action: Action, other: Action) -> list[Segment]:
        """Their segments, those that communicate joined."""
        ahead, back = (
            action_segments(self.plan.chunks[each.stage].layers, each.kind) for each in (action, other)
        )
        join = partial(self.blocks.joint, delay_wgrad=self.options.delay_wgrad)
        return paired_segments(ahead, back, join)

    def _run(self, action: Action, piece: Piece, before: Before, done: Token, *, fresh: bool) -> None:
        """Layers one after the other; where its weights are ``fresh``, each prepares them before."""
        layers = self.plan.chunks[action.stage].layers
        stretches = self.blocks.stretches(layers, action.kind, piece.start, piece.stop)
        if fresh:
            prepared = (layer.preparation for layer in layers[piece.start : piece.stop])
            stretches = self.blocks.alike(each for each in prepared if each.steps) + stretches
        name = f"{LETTERS[action.kind]}{action.microbatch}"
        if not stretches or self.options.every_operator or self._crowded(stretches):
            self._compute_task(Task(name, COMPUTE, 0.0, before.waits, begun=before.begun))
            for segment in (segment for stretch in stretches for segment in stretch.segments):
                self._place(self._operators(segment, action))
            self._compute_task(Task("done", COMPUTE, 0.0, (), done))
            return
        _, waits, begun = before
        for stretch in stretches:
            block = self._at_load(stretch.block, action, stretch.segments)
            self._compute_block(name, block, waits, done if stretch is stretches[-1] else None, begun)
            waits, begun = (), None

    def _loaded(self, block: Block, action: Action, layers: Sequence[LayerShare]) -> Block:
        """The block of an action, whose microbatch may have more to do than another."""
        if self.plan.loads is None:
            return block
        return self._at_load(block, action, action_segments(layers, action.kind))

    def _at_load(self, block: Block, action: Action, segments: Sequence[Segment]) -> Block:
        loads = self.plan.loads
        if loads is None:
            return block
        return loaded(block, segments, self.blocks.costs, loads, action.microbatch)

    def _crowded(self, stretches: Iterable[Stretch]) -> bool:
        """Whether their communication and that of data parallelism may ask more of a link than it has."""
        for stretch in stretches:
            for kind, rate in stretch.block.presses.items():
                if rate and rate > self._room.get(kind, rate):
                    return True
        return False

    def _operators(self, segment: Segment, action: Action | None = None) -> list[Placed]:
        """A segment operator by operator, of one action or of a pair."""
        self._expanded += 1
        label = (self.device, self._expanded)
        placed = self._costs.own_links(self.blocks.operators(segment, label, meets=self.options.meets))
        if action is None or self.plan.loads is None:
            return placed
        return loaded_operators(placed, self.blocks.quickest(segment), self.plan.loads, action.microbatch)

    def _finish(self, stages: Sequence[int]) -> None:
        placed, reduced = self._traffic.finish()
        self._place(placed)
        if self.plan.forward_only:
            return
        at_an_end = stages and (stages[0] == 0) != (stages[-1] == self.pipeline.last)
        tied = self.plan.tied_embedding_bytes if at_an_end else 0.0
        tied_s = self.hops.seconds(tied, self.pipeline.devices - 1) if tied else None
        work, norm = self.work.update(self._chunks(stages), self.plan.tensor), self._norm(stages)
        self._place(finish_step(self.plan, stages, reduced, work, self._costs, tied_s=tied_s, norm=norm))

    def _chunks(self, stages: Iterable[int]) -> list[ChunkShare]:
        return [self.plan.chunks[stage] for stage in stages]

    def _norm(self, stages: Sequence[int]) -> list[Placed]:
        devices = self.pipeline.devices
        match self.options.norm:
            case "all":
                return norm_of_all(self.options.norm_s, devices, stages)
            case "so far":
                hop_s = self.hops.seconds(NORM_BYTES, self.device) if devices > 1 else 0.0
                return norm_so_far(hop_s, self.device, devices, self._updates)
            case "none":
                return []


def _flat(order: Order) -> Iterator[Action]:
    for action in order:
        yield from action.parts
