"""How far back a window of a periodic schedule depends on the windows before it.

Two things tie devices together: messages, and blocking exchanges in which each waits for the other. Windows
are numbered per device. Where the numbers of two devices are out of step, one device's are moved until
nothing depends on a later window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulator.engine.messages import Pipeline, blocking_exchanges
from simulator.engine.tasks import Token
from simulator.schedule.actions import Order


class Window(NamedTuple):
    """The repeated actions of one device: [start, stop) in the short order."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Actions per window."""
        return self.stop - self.start

    def number(self, position: int) -> int:
        """Which window an action is in: −1 the last one, −2 the one before."""
        return (position - self.stop) // self.length


class _Tie(NamedTuple):
    """Work of a device that waits for work of a device ``lag`` windows earlier."""

    consumer: int
    producer: int
    lag: int


def compared_windows(
    pipeline: Pipeline, orders: Sequence[Order], windows: Sequence[Window], *, blocking: bool
) -> int | None:
    """How many windows in a row must be equal but for a shift, so that all later ones are.

    With windows relabelled by an offset per device so that every lag is at least 0, induction from one window
    to the next needs as many equal shifts as the largest lag, at labels that all devices have reached.
    ``None`` where no offsets do.
    """
    ties = set(
        _exchange_ties(pipeline, orders, windows) if blocking else _message_ties(pipeline, orders, windows)
    )
    offsets = _offsets(ties, len(orders))
    if offsets is None:
        return None
    lag = max((t.lag + offsets[t.consumer] - offsets[t.producer] for t in ties), default=1)
    return max(2, lag + max(offsets) - min(offsets) + 1)


def _offsets(ties: set[_Tie], devices: int) -> list[int] | None:
    """The smallest offsets that make every lag at least 0 (Bellman–Ford)."""
    offsets = [0] * devices
    for _ in range(devices + 1):
        changed = False
        for tie in ties:
            least = offsets[tie.producer] - tie.lag
            if offsets[tie.consumer] < least:
                offsets[tie.consumer] = least
                changed = True
        if not changed:
            return offsets
    return None


def _message_ties(pipeline: Pipeline, orders: Sequence[Order], windows: Sequence[Window]) -> Iterator[_Tie]:
    """An action waits for the one that makes its input, wherever that runs."""
    made: dict[Token, tuple[int, int]] = {}
    for device, order in enumerate(orders):
        for position, action in enumerate(order):
            for each in action.parts:
                made[pipeline.done(each)] = device, position
    for device, (order, window) in enumerate(zip(orders, windows, strict=True)):
        for position in range(window.start, window.stop):
            for each in order[position].parts:
                for token in pipeline.inputs(each):
                    producer, at = made[token]
                    yield _Tie(device, producer, -1 - windows[producer].number(at))


def _exchange_ties(pipeline: Pipeline, orders: Sequence[Order], windows: Sequence[Window]) -> Iterator[_Tie]:
    """What follows an exchange waits for what precedes it on the other device."""
    exchanges = blocking_exchanges(pipeline, orders)
    place = {
        (device, exchange.key): position
        for device, gaps in enumerate(exchanges)
        for position, gap in enumerate(gaps)
        for exchange in gap
    }
    for device, (gaps, window) in enumerate(zip(exchanges, windows, strict=True)):
        for position in range(window.start, window.stop):
            for exchange in gaps[position]:
                other = exchange.target if exchange.source == device else exchange.source
                before = place[other, exchange.key] - 1
                yield _Tie(device, other, -1 - windows[other].number(before))
