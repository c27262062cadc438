"""Activations and gradients between pipeline devices: who needs what, and how the software exchanges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simulator.engine.tasks import Token
from simulator.schedule.actions import Action, Kind, Order

BACKWARD = (Kind.B, Kind.I)


class Message(NamedTuple):
    """A boundary tensor on its way. ``token`` is signalled at the receiver when it has arrived."""

    token: Token
    source: int
    target: int
    after: Token  # the work that makes it

    @property
    def is_forward(self) -> bool:
        """Activations travel along the model, gradients against it."""
        return isinstance(self.token, tuple) and self.token[0] == "activation"


class Pipeline:
    """Where virtual stages live, and which messages an action needs and makes.

    ``placement[device]`` lists its virtual stages; for a schedule with two directions the second entry
    belongs to the second direction.
    """

    def __init__(self, placement: Sequence[Sequence[int]], stages: int, directions: int = 1) -> None:
        self.last = stages - 1
        self.devices = len(placement)
        self._owner: dict[tuple[int, int], int] = {}
        for device, held in enumerate(placement):
            for position, stage in enumerate(held):
                self._owner[position if directions == 2 else 0, stage] = device

    def done(self, action: Action) -> Token:
        """The token of an action's end."""
        kind = "I" if action.kind in BACKWARD else action.kind.name
        return (kind, action.direction, action.stage, action.microbatch)

    def input_of(self, action: Action) -> Message | None:
        """What an action needs from the stage before it (or after it, for gradients); ``None`` at the model's
        ends.
        """
        if action.kind is Kind.F and action.stage > 0:
            return self._message("activation", Kind.F, action, action.stage - 1)
        if action.kind in BACKWARD and action.stage < self.last:
            return self._message("gradient", Kind.I, action, action.stage + 1)
        return None

    def output_of(self, action: Action) -> Message | None:
        """What an action makes for another device, if it does."""
        step = 1 if action.kind is Kind.F else -1
        if action.kind is Kind.W or not 0 <= action.stage + step <= self.last:
            return None
        consumer = action._replace(stage=action.stage + step, partner=None)
        message = self.input_of(consumer)
        return message if message is not None and message.source != message.target else None

    def needs(self, action: Action) -> tuple[Token, ...]:
        """The token an action waits for: the message, or the work itself where it happens on the same device."""
        message = self.input_of(action)
        if message is None:
            return ()
        return (message.after if message.source == message.target else message.token,)

    def receives(self, action: Action) -> Message | None:
        """The message from another device that an action needs, if any."""
        message = self.input_of(action)
        return message if message is not None and message.source != message.target else None

    def _message(self, what: str, kind: Kind, action: Action, source_stage: int) -> Message:
        made_by = action._replace(kind=kind, stage=source_stage, partner=None)
        return Message(
            token=(what, action.direction, action.stage, action.microbatch),
            source=self._owner[action.direction, source_stage],
            target=self._owner[action.direction, action.stage],
            after=self.done(made_by),
        )


class Exchange(NamedTuple):
    """Messages between two devices that both await at one point of their programs."""

    messages: frozenset[Token]
    source: int
    target: int


def blocking_exchanges(pipeline: Pipeline, orders: Sequence[Order]) -> list[list[list[Exchange]]]:
    """Megatron-LM's non-interleaved point-to-point communication: per device, the exchanges *before* each
    action.

    Between two actions a device sends the first one's output and receives the second one's input. Where both
    go to the same neighbour, and it does the reverse at its own matching point, they are one batched call,
    done when both messages are; else the send comes first. One more entry per device holds what follows its
    last action.
    """
    wanted = [_between(pipeline, order) for order in orders]
    proposed = [
        {frozenset(message.token for message in gap) for gap in gaps if len(gap) == 2 and _same_pair(gap)}
        for gaps in wanted
    ]
    result = []
    for gaps in wanted:
        device_gaps = []
        for gap in gaps:
            both = frozenset(message.token for message in gap)
            joint = len(gap) == 2 and _same_pair(gap) and all(both in proposed[end] for end in gap[0][1:3])
            groups = [gap] if joint else [[message] for message in gap]
            device_gaps.append(
                [Exchange(frozenset(m.token for m in g), g[0].source, g[0].target) for g in groups if g]
            )
        result.append(device_gaps)
    return result


def _same_pair(gap: list[Message]) -> bool:
    return {gap[0].source, gap[0].target} == {gap[1].source, gap[1].target}


def _between(pipeline: Pipeline, order: Order) -> list[list[Message]]:
    """Messages a device sends or receives before each action, and after the last one; sends come first."""
    gaps = []
    for before, after in zip([None, *order], [*order, None], strict=True):
        sent = pipeline.output_of(before) if before is not None else None
        received = pipeline.receives(after) if after is not None else None
        gaps.append([message for message in (sent, received) if message is not None])
    return gaps
