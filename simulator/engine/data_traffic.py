"""Data-parallel traffic around the schedule of one device: what meets the kernels of an action, and where.

A *piece* is a run of a chunk's layers with the buckets of parameters or gradients that begin with it. The
traffic decides which actions are cut into pieces, what a piece waits for, and what follows it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from simulator.engine.block import Placed
from simulator.engine.costing import OperatorCosts
from simulator.engine.tasks import COMPUTE, Meeting, Task, Token
from simulator.graph.operators import Collective, Copy, Operator
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import Bucket
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Action

DP = "dp"
STREAMS = {
    "dp_cp": DP,
    "edp": "edp",
    "shard": DP,
    "replicate": "replicate",
}  # the groups' communicators run beside each other
OPTIMIZER = "optimizer"
PROCESSORS = "cpu"  # of the host
PREPARE = "prepare"  # the stream of casts beside compute


class Piece(NamedTuple):
    """Layers [start, stop) of a chunk, and the buckets whose first layer is ``start``."""

    start: int
    stop: int
    buckets: tuple[Bucket, ...]


class Before(NamedTuple):
    """What precedes a piece's kernels: tasks, what the kernels wait for, and what their start signals."""

    placed: list[Placed]
    waits: tuple[Token, ...]
    begun: Token | None = None


class DataTraffic(Protocol):
    """How parameters come and gradients go.

    ``meets_parameters``: whether any parameters come after a device's first action has begun;
    ``meets_gradients``: whether any reduction begins before its last one has ended.
    """

    @property
    def meets_parameters(self) -> bool: ...

    @property
    def meets_gradients(self) -> bool: ...

    def begin(self, actions: Sequence[Action]) -> list[Placed]:
        """Before the first action; ``actions`` are all of the device's, pairs taken apart."""
        ...

    def pieces(self, action: Action) -> Sequence[Piece] | None:
        """How an action is cut, in order of layers; ``None`` where no traffic meets it."""
        ...

    def before(self, action: Action, piece: Piece, waits: tuple[Token, ...]) -> Before:
        """What precedes a piece; what it places on the compute stream takes over ``waits``."""
        ...

    def after(self, action: Action, piece: Piece, done: Token) -> list[Placed]:
        """What follows a piece, whose kernels signal ``done`` when they are."""
        ...

    def finish(self) -> tuple[list[Placed], tuple[Token, ...]]:
        """What follows the last action, and the tokens of the reductions that the optimizer waits for."""
        ...


class NoTraffic:
    """Implements :class:`DataTraffic` where weights are whole and no gradients come about."""

    meets_parameters = False
    meets_gradients = False

    def begin(self, actions: Sequence[Action]) -> list[Placed]:
        """Nothing."""
        return []

    def pieces(self, action: Action) -> Sequence[Piece] | None:
        """No action is cut."""
        return None

    def before(self, action: Action, piece: Piece, waits: tuple[Token, ...]) -> Before:
        """Nothing."""
        return Before([], waits)

    def after(self, action: Action, piece: Piece, done: Token) -> list[Placed]:
        """Nothing."""
        return []

    def finish(self) -> tuple[list[Placed], tuple[Token, ...]]:
        """Nothing."""
        return [], ()


@lru_cache(maxsize=1024)
def cut(chunk: ChunkShare) -> tuple[Piece, ...]:
    """A chunk's layers, cut wherever a bucket of either group begins."""
    begins = sorted({0, *(bucket.first_layer for bucket in chunk.buckets)})
    return tuple(
        Piece(start, stop, tuple(bucket for bucket in chunk.buckets if bucket.first_layer == start))
        for start, stop in zip(begins, [*begins[1:], len(chunk.layers)], strict=True)
    )


def collective(
    op: Collective,
    stream: str,
    waits: tuple[Token, ...],
    signal: Token,
    costs: OperatorCosts,
    *,
    known_as: Token = None,
    name: str = "",
) -> Placed:
    """A collective as a meeting of its group.

    ``known_as``: what all its members call it, where they signal its end by different tokens; ``name``: of
    the task, where that says more than the collective's own.
    """
    cost = costs.cost(op)
    meeting = Meeting((op.axis, signal if known_as is None else known_as), 0)
    flow, holds, name = costs.flow(op), costs.communication_share, name or op.name
    return Placed(stream, Task(name, cost.category, cost.seconds, waits, signal, meeting, None, flow, holds))


def data_presses(plan: RunPlan, stages: Iterable[int], costs: OperatorCosts) -> dict[str, float]:
    """The most bytes/s that gathers and reductions of these stages together ask of each kind of link."""
    rates: defaultdict[str, dict[str, float]] = defaultdict(dict)
    chunks = dict.fromkeys(plan.chunks[stage] for stage in stages)
    buckets = (bucket for chunk in chunks for bucket in chunk.buckets)
    alike = {(b.axis, b.parameters, b.gathered_bytes, b.messages): b for b in buckets}
    for bucket in alike.values():
        gather = plan.data.gather_parameters(bucket, "")
        reductions = plan.data.reduce_gradients(bucket, "")
        for op in reductions if gather is None else (gather, *reductions):
            flow, stream = costs.flow(op), STREAMS[op.axis]
            for kind, rate in flow.demands if flow is not None else ():
                rates[kind][stream] = max(rate, rates[kind].get(stream, 0.0))
    return {kind: sum(streams.values()) for kind, streams in rates.items()}


def kernels(ops: Sequence[Operator], costs: OperatorCosts) -> Task:
    """Kernels one after the other as one task, counted under the first one's category."""
    category = costs.cost(ops[0]).category if ops else COMPUTE
    return Task(ops[0].name if ops else "nothing", category, costs.total(ops))


def chain(
    ops: Sequence[Operator], waits: tuple[Token, ...], place: Token, costs: OperatorCosts
) -> tuple[list[Placed], tuple[Token, ...]]:
    """Work outside the device, each operator after the one before it and on the stream of its kind.

    Also what signals the end: the last token, or ``waits`` where there is nothing to do. ``place`` tells this
    chain from all others of the device.
    """
    placed = []
    for number, op in enumerate(ops):
        stream = op.kind if isinstance(op, Copy) else PROCESSORS
        cost = costs.cost(op)
        done = ("chain", place, number)
        placed.append(Placed(stream, Task(op.name, cost.category, cost.seconds, waits, done)))
        waits = (done,)
    return placed, waits


def reduce_bucket(
    plan: RunPlan,
    place: tuple[object, ...],
    bucket: Bucket,
    costs: OperatorCosts,
    complete: Token,
    after: tuple[Token, ...] = (),
    *,
    direction: int = 0,
) -> tuple[list[Placed], tuple[Token, ...]]:
    """Prepares a bucket's gradients and starts their reduction; also the token of its end, if there is one.

    ``place`` tells this reduction from all others of the device, and with ``direction`` from those of the
    device that holds the other copy; gradients are ``complete`` once that token is signalled, and the device
    goes on ``after`` some others. Each collective follows the one before it; then sharded gradients may leave
    for the host.
    """
    ops = plan.data.reduce_gradients(bucket, "gradients")
    leaving = plan.data.leave_shard(bucket)
    if not ops and not leaving:
        return [], ()
    placed, ready = [], complete
    ops_before = plan.data.before_reduction(bucket)
    if ops_before or after:
        ready = ("gradients", bucket.axis, direction, *place)
        before = kernels(ops_before, costs)
        placed.append(Placed(COMPUTE, before._replace(waits=after, signal=ready)))
    beside = kernels(plan.data.beside_reduction(bucket), costs)
    if beside.seconds:
        prepared = ("prepared", bucket.axis, direction, *place)
        placed.append(Placed(PREPARE, beside._replace(waits=(ready,), signal=prepared)))
        ready = prepared
    for number, op in enumerate(ops):
        known_as = ("reduced", bucket.axis, *place, number)
        reduced = (direction, known_as)
        placed.append(collective(op, STREAMS[op.axis], (ready,), reduced, costs, known_as=known_as))
        ready = reduced
    left, ends = chain(leaving, (ready,), ("leave", bucket.axis, direction, *place), costs)
    return [*placed, *left], ends
