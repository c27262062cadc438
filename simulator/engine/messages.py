"""Activations and gradients between pipeline devices: who needs what, and how the software exchanges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from simulator.engine.tasks import Token
from simulator.schedule.actions import Action, Kind, Order

# tokens are (what, direction, stage, microbatch); the kinds of work that signal their end share one numbering
FORWARD_DONE, GRADIENT_DONE, WEIGHTS_DONE, ACTIVATION, GRADIENT = range(5)
_DONE = (FORWARD_DONE, GRADIENT_DONE, GRADIENT_DONE, WEIGHTS_DONE)  # by kind of action: F, B, I, W


def is_message(token: Token) -> bool:
    """Whether it is the token of a message's arrival."""
    return isinstance(token, tuple) and token[0] in (ACTIVATION, GRADIENT)


class Message(NamedTuple):
    """A boundary tensor on its way to ``target``. ``token`` is signalled when it has arrived."""

    token: tuple[int, ...]
    source: int
    target: int
    after: tuple[int, ...]  # the work that makes it
    is_forward: bool  # activations travel along the model, gradients against it

    @property
    def stream(self) -> str:
        """Of its sender: activations and gradients have one each."""
        return "send activations" if self.is_forward else "send gradients"


class Pipeline:
    """Where virtual stages live, and which messages an action needs and makes.

    ``placement[device]`` lists its virtual stages; for a schedule with two directions the second entry
    belongs to the second direction.
    """

    def __init__(self, placement: Sequence[Sequence[int]], stages: int, directions: int = 1) -> None:
        self.last = stages - 1
        self.devices = len(placement)
        self._owner = [[-1] * stages for _ in range(directions)]
        for device, held in enumerate(placement):
            for position, stage in enumerate(held):
                self._owner[position if directions == 2 else 0][stage] = device

    def done(self, action: Action) -> Token:
        """The token of an action's end."""
        return (_DONE[action.kind], action.direction, action.stage, action.microbatch)

    def receives(self, action: Action) -> Message | None:
        """The message from another device that an action needs, if any."""
        kind, stage = action.kind, action.stage
        if kind is Kind.F:
            return self._message(action, stage - 1, stage, forward=True) if stage else None
        if kind is Kind.W or stage == self.last:
            return None
        return self._message(action, stage + 1, stage, forward=False)

    def output_of(self, action: Action) -> Message | None:
        """What an action makes for another device, if it does."""
        kind, stage = action.kind, action.stage
        if kind is Kind.F:
            return self._message(action, stage, stage + 1, forward=True) if stage < self.last else None
        if kind is Kind.W or stage == 0:
            return None
        return self._message(action, stage, stage - 1, forward=False)

    def needs(self, action: Action) -> tuple[Token, ...]:
        """The token an action waits for: its message, or the work itself where one device does both."""
        kind, stage, microbatch, direction, _ = action
        owner = self._owner[direction]
        if kind is Kind.F:
            if stage == 0:
                return ()
            local = owner[stage - 1] == owner[stage]
            made = (FORWARD_DONE, direction, stage - 1, microbatch)
            return (made if local else (ACTIVATION, direction, stage, microbatch),)
        if kind is Kind.W or stage == self.last:
            return ()
        local = owner[stage + 1] == owner[stage]
        made = (GRADIENT_DONE, direction, stage + 1, microbatch)
        return (made if local else (GRADIENT, direction, stage, microbatch),)

    def inputs(self, action: Action) -> tuple[Token, ...]:
        """The tokens of the work that makes an action's input, on whichever device."""
        kind, stage, microbatch, direction, _ = action
        if kind is Kind.F:
            return ((FORWARD_DONE, direction, stage - 1, microbatch),) if stage else ()
        if kind is Kind.W or stage == self.last:
            return ()
        return ((GRADIENT_DONE, direction, stage + 1, microbatch),)

    def _message(self, action: Action, made: int, used: int, *, forward: bool) -> Message | None:
        """From stage ``made`` to stage ``used``; ``None`` where one device holds both."""
        direction, microbatch = action.direction, action.microbatch
        owner = self._owner[direction]
        source, target = owner[made], owner[used]
        if source == target:
            return None
        token = (ACTIVATION if forward else GRADIENT, direction, used, microbatch)
        after = (FORWARD_DONE if forward else GRADIENT_DONE, direction, made, microbatch)
        return Message(token, source, target, after, forward)


class Exchange(NamedTuple):
    """Messages between two devices that both await at one point of their programs."""

    key: Token  # the same on both devices
    source: int
    target: int

    @property
    def both_ways(self) -> bool:
        """Whether it is a batch: an activation and a gradient that cross."""
        return not isinstance(self.key, tuple) or isinstance(self.key[0], tuple)

    def sends(self, device: int) -> bool:
        """Whether a device sends in it."""
        return self.both_ways or device == self.source

    def side(self, device: int) -> tuple[int, bool]:
        """What sets a device's side of it apart from those of other exchanges: with whom, and if it sends."""
        return self.target if device == self.source else self.source, self.sends(device)


def blocking_exchanges(
    pipeline: Pipeline, orders: Sequence[Order], *, batched: bool = True
) -> list[list[list[Exchange]]]:
    """Megatron-LM's non-interleaved point-to-point communication: the exchanges *before* each action.

    Between two actions a device sends the first one's output and receives the second one's input. Where both
    go to the same neighbour, and it does the reverse at its own matching point, they are one batched call,
    done when both messages are; else the send comes first. Not ``batched``, every message is a call of its
    own, and every other device receives first, so that each meets its neighbour's (``_p2p_ops`` in Megatron-
    LM). One more entry per device holds what follows its last action.
    """
    gaps = [_between(pipeline, order) for order in orders]
    if not batched:
        return [[_one_by_one(gap, device % 2 == 1) for gap in own] for device, own in enumerate(gaps)]
    both = [{pair for out, into in device if (pair := _batch(out, into)) is not None} for device in gaps]
    return [[_exchanges(out, into, both) for out, into in device] for device in gaps]


Batch: TypeAlias = tuple[Token, Token]  # the activation and the gradient that cross between two devices


def _batch(out: Message | None, into: Message | None) -> Batch | None:
    """The pair of messages that one batched call would carry, if both are with the same neighbour."""
    if out is None or into is None or out.target != into.source:
        return None
    return (out.token, into.token) if out.is_forward else (into.token, out.token)


def _exchanges(out: Message | None, into: Message | None, both: list[set[Batch]]) -> list[Exchange]:
    batch = _batch(out, into)
    if out is not None and batch is not None and batch in both[out.target]:
        return [Exchange(batch, out.source, out.target)]
    return [Exchange(message.token, message.source, message.target) for message in (out, into) if message]


def _one_by_one(gap: tuple[Message | None, Message | None], receives_first: bool) -> list[Exchange]:
    messages = reversed(gap) if receives_first else gap
    return [Exchange(message.token, message.source, message.target) for message in messages if message]


def _between(pipeline: Pipeline, order: Order) -> list[tuple[Message | None, Message | None]]:
    """What a device sends and receives before each action, and after the last one."""
    sent = [None, *map(pipeline.output_of, order)]
    received = [*map(pipeline.receives, order), None]
    return list(zip(sent, received, strict=True))


def waiting_for_ever(exchanges: Sequence[Sequence[Sequence[Exchange]]]) -> dict[int, int]:
    """The devices that blocking exchanges leave waiting for each other, and the action before which each is.

    ``exchanges`` are those of :func:`blocking_exchanges`. A device goes on when the other side of its next
    one has come to it too; which pair goes first changes nothing, so that one way through is enough.
    """
    ahead = [iter([(each.key, at) for at, gap in enumerate(own) for each in gap]) for own in exchanges]
    waiting: dict[Token, tuple[int, int]] = {}
    going = list(range(len(ahead)))
    while going:
        device = going.pop()
        for key, at in ahead[device]:
            if key not in waiting:
                waiting[key] = (device, at)
                break
            going.append(waiting.pop(key)[0])
    return dict(sorted(waiting.values()))
