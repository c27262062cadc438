"""Fully sharded data parallelism: ZeRO-3, FSDP1 and FSDP2 (Zhao 2023, section 3).

Parameters live in shards; each unit (a layer) is gathered before its forward, freed after it, gathered again
before its backward. Gathers are issued ``prefetch`` units before their use. Gradients are reduce-scattered
after each unit's backward. Gathers and reductions share one communicator, so they queue in the order in which
they are issued. The head stays gathered between its forward and its backward, which follow each other; an
embedding's backward needs no parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulator.engine.block import Placed
from simulator.engine.data_traffic import PREPARE, Before, Piece, chain, cut, reduce_bucket
from simulator.engine.data_work import STREAMS, DataWork
from simulator.engine.device_costs import DeviceCosts
from simulator.engine.tasks import COMPUTE, Task, Token
from simulator.partition.data import Bucket
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Action, Kind

GRADIENTS = (Kind.B, Kind.I)
ENDS = ("embedding", "head")


class _Use(NamedTuple):
    """A unit's parameters as one action needs them."""

    action: Action
    bucket: Bucket

    @property
    def token(self) -> Token:
        """Signalled when they have been gathered."""
        a, bucket = self.action, self.bucket
        return ("unit", bucket.axis, int(a.kind), a.stage, a.microbatch, a.direction, bucket.first_layer)


class FullyShardedTraffic:
    """Implements :class:`simulator.engine.data_traffic.DataTraffic` for sharded parameters."""

    meets_parameters = True
    meets_gradients = True

    def __init__(self, plan: RunPlan, work: DataWork, costs: DeviceCosts) -> None:
        self._plan = plan
        self._work = work
        self._costs = costs
        self._policy = plan.data.sharding
        self._places: dict[Token, int] = {}  # of every use, the position of its unit in the queue
        self._queue: list[tuple[_Use, ...]] = []  # what each unit needs: several gathers where it has experts
        self._last: dict[int, Action] = {}
        self._under_way: tuple[Token, ...] = ()  # FSDP2 has one reduction's buffer at a time
        self._reduced: dict[tuple[int, int, str], tuple[Token, ...]] = {}

    def begin(self, actions: Sequence[Action]) -> list[Placed]:
        """The first gathers; every later one is issued when the unit ``prefetch`` before it begins."""
        self._last = {a.stage: a for a in actions if a.kind in (Kind.B, Kind.W)}
        self._queue = [unit for unit in self._needed(actions) if unit]
        self._places = {use.token: index for index, unit in enumerate(self._queue) for use in unit}
        first = self._queue[: self._policy.prefetch]
        return [placed for unit in first for use in unit for placed in self._gather(use, ())]

    def _needed(self, actions: Sequence[Action]) -> Iterator[tuple[_Use, ...]]:
        """What must be gathered for every use of a unit, in order."""
        kept: set[tuple[int, int]] = set()
        for action in actions:
            chunk = self._plan.chunks[action.stage]
            forward = action.kind is Kind.F
            if not forward and action.kind not in GRADIENTS:
                continue
            for piece in cut(chunk) if forward else reversed(cut(chunk)):
                unit = (action.stage, piece.start)
                stays = self._policy.keep != "forward" or chunk.layers[piece.start].kind in ENDS
                if unit in kept or (stays and not forward):
                    continue
                if self._policy.keep == "step":
                    kept.add(unit)
                yield tuple(_Use(action, bucket) for bucket in piece.buckets if self._comes(bucket))

    def _comes(self, bucket: Bucket) -> bool:
        """Whether a unit's parameters have to be brought at all."""
        work = self._work.bucket(bucket)
        return work.gather is not None or bool(work.fetched)

    def _gather(self, use: _Use, waits: tuple[Token, ...]) -> list[Placed]:
        """Brings a unit's parameters: its shard from the host, a cast, the gather; what there is of these."""
        work = self._work.bucket(use.bucket)
        placed, waits = chain(work.fetched, waits, ("fetch", use.token), self._costs.of_any)
        if work.cast.seconds:
            ready = ("cast", use.token)
            placed.append(Placed(PREPARE, work.cast._replace(waits=waits, signal=ready)))
            waits = (ready,)
        if work.gather is None:
            return [*placed, Placed(PREPARE, Task("arrived", COMPUTE, 0.0, waits, use.token))]
        return [*placed, self._costs.collective(work.gather, STREAMS[work.gather.axis], waits, use.token)]

    def pieces(self, action: Action) -> Sequence[Piece] | None:
        """Every action is cut into its units, but those that neither need nor make anything shared."""
        chunk = self._plan.chunks[action.stage]
        if self._policy.keep == "step" and not self._meets_traffic(action):
            return None
        return cut(chunk)

    def _meets_traffic(self, action: Action) -> bool:
        if action.kind is not Kind.F:
            return self._policy.reduce == "microbatch" or action is self._last.get(action.stage)
        return any(_Use(action, b).token in self._places for b in self._plan.chunks[action.stage].buckets)

    def before(self, action: Action, piece: Piece, waits: tuple[Token, ...]) -> Before:
        """Waits for the unit's parameters, and issues the gathers of a later unit."""
        needed = [_Use(action, bucket).token for bucket in piece.buckets]
        needed = [token for token in needed if token in self._places]
        if not needed:
            return Before([], waits)
        waits, hook = (*waits, *needed), ("begin", needed[0])
        begun: Token | None = hook
        placed = []
        for bucket in piece.buckets:
            copy = self._work.bucket(bucket).copied
            if copy.seconds:
                placed.append(Placed(COMPUTE, copy._replace(waits=waits, begun=begun)))
                waits, begun = (), None
        ahead = self._places[needed[0]] + self._policy.prefetch
        for use in self._queue[ahead] if ahead < len(self._queue) else ():
            placed += self._gather(use, (hook,))
        return Before(placed, waits, begun)

    def after(self, action: Action, piece: Piece, done: Token) -> list[Placed]:
        """Reduce-scatters the unit's gradients, of every microbatch or of the last one."""
        if action.kind not in (Kind.B, Kind.W):
            return []
        if self._policy.reduce == "step" and action is not self._last[action.stage]:
            return []
        placed: list[Placed] = []
        for bucket in piece.buckets:
            place = (bucket.axis, action.stage, action.microbatch, action.direction, bucket.first_layer)
            work = self._work.bucket(bucket)
            tasks, tokens = reduce_bucket(work, place, self._costs, done, self._under_way)
            placed += tasks
            if self._policy.buffers == "copied":
                self._under_way = tokens
            self._reduced[action.stage, bucket.first_layer, bucket.axis] = tokens
        return placed

    def finish(self) -> tuple[list[Placed], tuple[Token, ...]]:
        """Nothing is left to reduce; the optimizer waits for each unit's last reduction."""
        return [], tuple(token for tokens in self._reduced.values() for token in tokens)
