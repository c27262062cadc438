"""What each action of a schedule waits for and sends: the same for all runs of that schedule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from simulator.engine.messages import Exchange, Pipeline, blocking_exchanges
from simulator.engine.tasks import Token
from simulator.schedule.actions import Action, Kind, Order

EXCHANGE, GATHER = -1, -2  # work of a step that is not an action

Work: TypeAlias = tuple[tuple[int, Kind], ...]
"""Stage and kind of an action, or of the two of a pair: what its length depends on."""


class Route(NamedTuple):
    """The way of messages from one device to another."""

    stream: str
    source: int
    target: int


class Sent(NamedTuple):
    """A message on a device's ``route``. ``token`` is signalled when it has arrived, ``after`` lets it go."""

    route: int
    token: Token
    after: Token


class Step(NamedTuple):
    """An action, a blocking exchange before it, or the gather of its scattered input.

    ``work`` is a position in :attr:`DeviceWiring.works`, or EXCHANGE or GATHER. It waits for messages only:
    what the device itself has made is there, as it runs one step after the other.
    """

    work: int
    waits: tuple[Token, ...]
    sends: tuple[Sent, ...]
    exchange: Exchange | None


class Edge(NamedTuple):
    """An action that is a stage's first forward or its last gradient: data-parallel traffic may meet it.

    It runs in steps [begin, stop): one, or two of a pair whose actions run one after the other.
    """

    action: Action
    is_first: bool
    begin: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceWiring:
    """One device's actions as steps.

    Attributes:
        begins: by action, the first step that belongs to it; one more for what follows the last action.
        edges: in order.
        held: its stages.
        trained: those of them that have gradients.
        repeats: how many steps have each work.
        exchanges: one of each kind, by the device's side of it.
    """

    device: int
    order: Order
    steps: tuple[Step, ...]
    begins: tuple[int, ...]
    edges: tuple[Edge, ...]
    held: tuple[int, ...]
    trained: tuple[int, ...]
    works: tuple[Work, ...]
    repeats: Counter[int]
    routes: tuple[Route, ...]
    exchanges: Mapping[tuple[int, bool], Exchange]


class Habits(NamedTuple):
    """How the software communicates between stages."""

    blocking: bool  # exchanges that both sides await
    batched: bool  # of those: what is sent and received at once is one call
    overlaps: bool  # in its steady state a device does not wait for what it has sent ...
    overlaps_edges: bool  # ... nor outside it
    gathers: bool  # messages arrive scattered
    pairs: bool  # the two actions of a pair are one kernel sequence, not one after the other


def wire(pipeline: Pipeline, orders: Sequence[Order], habits: Habits) -> tuple[DeviceWiring, ...]:
    """The steps of every device."""
    exchanges: Sequence[Sequence[Sequence[Exchange]]]
    if habits.blocking:
        exchanges = blocking_exchanges(pipeline, orders, batched=habits.batched)
    else:
        exchanges = [[()] * (len(order) + 1) for order in orders]
    return tuple(
        _wire_device(pipeline, device, order, own, habits)
        for device, (order, own) in enumerate(zip(orders, exchanges, strict=True))
    )


def _wire_device(
    pipeline: Pipeline,
    device: int,
    order: Order,
    exchanges: Sequence[Sequence[Exchange]],
    habits: Habits,
) -> DeviceWiring:
    steps: list[Step] = []
    begins: list[int] = []
    runs_at: list[int] = []
    shapes = _Shapes(pipeline, habits)
    steady = steady_actions(order)
    awaited: tuple[Token, ...] = ()  # own messages that are still on their way
    for index, action in enumerate(order):
        begins.append(len(steps))
        steps += [Step(EXCHANGE, (), (), exchange) for exchange in exchanges[index]]
        kernels = [(shapes.of(one), one) for one in _apart(action, together=habits.pairs)]
        waits: tuple[Token, ...] = ()
        for shape, one in kernels:
            for which, token in shape.needs:
                waits += ((*token, one[which].microbatch),)
        for shape, _ in kernels:
            for _ in range(shape.gathers):
                steps.append(Step(GATHER, waits, (), None))
                waits = ()
        waits = awaited + waits
        runs_at.append(len(steps))
        awaited = ()
        for shape, one in kernels:
            sends: tuple[Sent, ...] = ()
            for which, route, token, after in shape.sends:
                microbatch = one[which].microbatch
                sends += (Sent(route, (*token, microbatch), (*after, microbatch)),)
            steps.append(Step(shape.work, waits, sends, None))
            for sent in sends:
                awaited += (sent.token,)
            waits = ()
        if habits.overlaps and (habits.overlaps_edges or index in steady):
            awaited = ()
    begins.append(len(steps))
    steps += [Step(EXCHANGE, (), (), exchange) for exchange in exchanges[-1]]
    firsts, lasts = _edges(order)
    works = tuple(shapes.works)
    return DeviceWiring(
        device=device,
        order=order,
        steps=tuple(steps),
        begins=tuple(begins),
        edges=tuple(Edge(order[i], i in firsts, runs_at[i], begins[i + 1]) for i in sorted(firsts | lasts)),
        held=tuple(sorted({stage for work in works for stage, _ in work})),
        trained=tuple(sorted({stage for work in works for stage, kind in work if kind is not Kind.F})),
        works=works,
        repeats=Counter(step.work for step in steps),
        routes=tuple(shapes.routes),
        exchanges={step.exchange.side(device): step.exchange for step in steps if step.exchange},
    )


def _apart(action: Action, *, together: bool) -> tuple[tuple[Action, ...], ...]:
    """The kernel sequences of an action: one, or two where those of a pair do not run together."""
    parts = action.parts
    return (parts,) if together or action.partner is None else tuple([(each,) for each in parts])


class _Way(NamedTuple):
    """Of a message: of which action of a kernel sequence, a device's route, and tokens as :class:`Sent` has
    them but for the microbatch."""

    which: int
    route: int
    token: tuple[int, ...]
    after: tuple[int, ...]


class _Shape(NamedTuple):
    """What kernel sequences have in common that differ in their microbatches alone.

    ``gathers``: how many of the messages that they need arrive scattered. Where they do not block, these
    messages (of which action, and tokens but for the microbatch) and those that they send.
    """

    work: int
    gathers: int
    needs: tuple[tuple[int, tuple[int, ...]], ...]
    sends: tuple[_Way, ...]


class _Shapes:
    """Those of one device, with its works and routes, numbered in the order in which they come."""

    def __init__(self, pipeline: Pipeline, habits: Habits) -> None:
        self.works: dict[Work, int] = {}
        self.routes: dict[Route, int] = {}
        self._pipeline = pipeline
        self._habits = habits
        self._known: dict[tuple[int, ...], _Shape] = {}

    def of(self, actions: tuple[Action, ...]) -> _Shape:
        """The shape of a kernel sequence."""
        key = tuple([4 * (2 * a.stage + a.direction) + a.kind for a in actions])  # an enum's own hash is slow
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._shape(actions)
        return found

    def _shape(self, actions: tuple[Action, ...]) -> _Shape:
        received = [(which, self._pipeline.receives(action)) for which, action in enumerate(actions)]
        needs = [(which, message.token[:-1]) for which, message in received if message is not None]
        blocking, work = self._habits.blocking, tuple([(action.stage, action.kind) for action in actions])
        return _Shape(
            self.works.setdefault(work, len(self.works)),
            len(needs) if self._habits.gathers else 0,
            () if blocking else tuple(needs),
            () if blocking else tuple(self._ways(actions)),
        )

    def _ways(self, actions: tuple[Action, ...]) -> Iterator[_Way]:
        for which, message in enumerate(map(self._pipeline.output_of, actions)):
            if message is not None:
                route = Route(message.stream, message.source, message.target)
                number = self.routes.setdefault(route, len(self.routes))
                yield _Way(which, number, message.token[:-1], message.after[:-1])


def _edges(order: Order) -> tuple[set[int], set[int]]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, action in enumerate(order):
        for each in action.parts:
            if each.kind is Kind.F:
                first.setdefault(each.stage, index)
            elif each.kind is not Kind.I:
                last[each.stage] = index
    return set(first.values()), set(last.values())


def steady_actions(order: Order) -> range:
    """From a device's first backward to its last forward."""
    forwards = [i for i, action in enumerate(order) if action.kind is Kind.F]
    backwards = (i for i, a in enumerate(order) if a.partner is not None or a.kind is not Kind.F)
    return range(next(backwards, len(order)), forwards[-1] + 1 if forwards else 0)
