"""What each action of a schedule waits for and sends: the same for all runs of that schedule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from simulator.engine.messages import Exchange, Pipeline, blocking_exchanges, is_message
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
    works: dict[Work, int] = {}
    routes: dict[Route, int] = {}
    steady = steady_actions(order)
    awaited: tuple[Token, ...] = ()  # own messages that are still on their way
    for index, action in enumerate(order):
        begins.append(len(steps))
        steps += [Step(EXCHANGE, (), (), exchange) for exchange in exchanges[index]]
        waits = () if habits.blocking else _messages(pipeline, action)
        for each in action.parts if habits.gathers else ():
            if pipeline.receives(each) is not None:
                steps.append(Step(GATHER, waits, (), None))
                waits = ()
        waits = awaited + waits
        runs_at.append(len(steps))
        awaited = ()
        for part in (action.parts,) if habits.pairs else ((each,) for each in action.parts):
            sends = () if habits.blocking else _sends(pipeline, part, routes)
            work = tuple((each.stage, each.kind) for each in part)
            steps.append(Step(works.setdefault(work, len(works)), waits, sends, None))
            awaited += tuple(sent.token for sent in sends)
            waits = ()
        if habits.overlaps and (habits.overlaps_edges or index in steady):
            awaited = ()
    begins.append(len(steps))
    steps += [Step(EXCHANGE, (), (), exchange) for exchange in exchanges[-1]]
    firsts, lasts = _edges(order)
    return DeviceWiring(
        device=device,
        order=order,
        steps=tuple(steps),
        begins=tuple(begins),
        edges=tuple(Edge(order[i], i in firsts, runs_at[i], begins[i + 1]) for i in sorted(firsts | lasts)),
        held=tuple(sorted({stage for work in works for stage, _ in work})),
        trained=tuple(sorted({stage for work in works for stage, kind in work if kind is not Kind.F})),
        works=tuple(works),
        repeats=Counter(step.work for step in steps),
        routes=tuple(routes),
        exchanges={step.exchange.side(device): step.exchange for step in steps if step.exchange},
    )


def _messages(pipeline: Pipeline, action: Action) -> tuple[Token, ...]:
    """The messages from other devices that an action needs."""
    tokens = (token for each in action.parts for token in pipeline.needs(each))
    return tuple(filter(is_message, tokens))


def _sends(pipeline: Pipeline, actions: Sequence[Action], routes: dict[Route, int]) -> tuple[Sent, ...]:
    sends = []
    for message in map(pipeline.output_of, actions):
        if message is not None:
            route = Route(message.stream, message.source, message.target)
            sends.append(Sent(routes.setdefault(route, len(routes)), message.token, message.after))
    return tuple(sends)


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
