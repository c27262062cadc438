"""Data-parallel traffic around the schedule of one device: what meets the kernels of an action, and where.

A *piece* is a run of a chunk's layers with the buckets of parameters or gradients that begin with it. The
traffic decides which actions are cut into pieces, what a piece waits for, and what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from simulator.engine.block import Placed
from simulator.engine.costing import OperatorCosts
from simulator.engine.data_work import STREAMS, BucketWork, kernels
from simulator.engine.device_costs import DeviceCosts
from simulator.engine.tasks import COMPUTE, Task, Token
from simulator.graph.operators import Copy, Operator
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import Bucket
from simulator.schedule.actions import Action

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
    work: BucketWork,
    place: tuple[object, ...],
    costs: DeviceCosts,
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
    if not work.reductions and not work.leaving:
        return [], ()
    placed, ready = [], complete
    if work.prepared or after:
        ready = ("gradients", direction, place)
        task = work.prepared or kernels((), costs.of_any)
        placed.append(Placed(COMPUTE, task._replace(waits=after, signal=ready)))
    if work.beside.seconds:
        prepared = ("prepared", direction, place)
        placed.append(Placed(PREPARE, work.beside._replace(waits=(ready,), signal=prepared)))
        ready = prepared
    for number, op in enumerate(work.reductions):
        known_as = ("reduced", *place, number)
        reduced = (direction, known_as)
        placed.append(costs.collective(op, STREAMS[op.axis], (ready,), reduced, known_as=known_as))
        ready = reduced
    if not work.leaving:
        return placed, (ready,)
    left, ends = chain(work.leaving, (ready,), ("leave", direction, place), costs.of_any)
    return [*placed, *left], ends
