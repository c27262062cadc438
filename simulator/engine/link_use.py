"""What links carried over a step: the fluid model of :mod:`simulator.engine.links`, read off a replay."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

from simulator.engine.links import Capacities, capacity
from simulator.engine.replay import Replay
from simulator.engine.tasks import COMPUTE, Record
from simulator.engine.uplinks import Above
from simulator.network.sharing import fair_rates

Link: TypeAlias = tuple[str, Hashable]
Series: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Times, and the rate in bytes/s from each on."""
_NOTHING: Series = ((0.0,), (0.0,))


def link_use(events: Replay, first_ranks: Sequence[int]) -> dict[tuple[str, int | Above], Series]:
    """By kind of link and device (uplinks: by whose they are), what links carried.

    Of a simulation of every rank, those of the first replica, and all uplinks.

    Args:
        events: a replay whose transfers name their links.
        first_ranks: by device, the simulated rank that is shown.

    What replayed blocks carry counts as its mean over each block.
    """
    transfers = [
        record
        for records in events.records.values()
        for record in records
        if record.task.flow is not None and record.end > record.start
    ]
    ends = [(record.end, 0, index) for index, record in enumerate(transfers)]
    starts = [(record.start, 1, index) for index, record in enumerate(transfers)]
    use = _Use(events.capacities)
    for time, begins, index in sorted(starts + ends):
        (use.begin if begins else use.end)(time, transfers[index])
    found = {
        (kind, whose): (tuple(series), tuple(series.values()))
        for (kind, owner), series in use.series.items()
        if (whose := _whose(owner)) is not None
    }
    for device, rank in enumerate(first_ranks):
        for kind, blocks in _of_blocks(events.stream(rank, COMPUTE)).items():
            found[kind, device] = _sum(found.get((kind, device), _NOTHING), blocks)
    return found


def _of_blocks(records: Sequence[Record]) -> dict[str, Series]:
    """By kind of link, the mean rate of each block."""
    found: defaultdict[str, dict[float, float]] = defaultdict(lambda: {0.0: 0.0})
    for record in records:
        for kind, carried in (record.task.carries or {}).items():
            found[kind][record.start] = carried / (record.end - record.start)
            found[kind][record.end] = 0.0
    return {kind: (tuple(series), tuple(series.values())) for kind, series in found.items()}


def _sum(one: Series, other: Series) -> Series:
    """Two step functions added."""
    times = sorted({*one[0], *other[0]})
    values = [sum(values[bisect_right(at, time) - 1] for at, values in (one, other)) for time in times]
    return tuple(times), tuple(values)


def _whose(owner: Hashable) -> int | Above | None:
    """Whose a link is: a switch's, a device's, or in a simulation of every rank that of (device, replica)."""
    if isinstance(owner, Above):
        return owner
    if isinstance(owner, tuple):
        device, replica = owner
        return int(device) if not any(replica) else None
    return int(owner)  # type: ignore[call-overload, no-any-return]


class _Use:
    """Transfers under way, link by link, and the rates that links have carried so far."""

    def __init__(self, capacities: Capacities) -> None:
        self._capacities = capacities
        self._on: dict[Link, dict[int, Record]] = {}
        self.series: dict[Link, dict[float, float]] = {}

    def begin(self, time: float, transfer: Record) -> None:
        """A transfer starts."""
        for link in _links(transfer):
            self._on.setdefault(link, {})[id(transfer)] = transfer
        self._share(time, [transfer])

    def end(self, time: float, transfer: Record) -> None:
        """A transfer is over."""
        for link in _links(transfer):
            del self._on[link][id(transfer)]
            self.series[link][time] = 0.0
        self._share(time, [other for link in _links(transfer) for other in self._on[link].values()])

    def _share(self, time: float, changed: Iterable[Record]) -> None:
        """Notes the rates of all transfers joined with these, from now on."""
        group = {id(transfer): transfer for transfer in changed}
        queue = list(group.values())
        for current in queue:
            for link in _links(current):
                for key, other in self._on[link].items():
                    if key not in group:
                        group[key] = other
                        queue.append(other)
        links = {link for transfer in queue for link in _links(transfer)}
        rates = fair_rates(
            {key: _links(transfer) for key, transfer in group.items()},
            {link: capacity(self._capacities, link) for link in links},
            ceilings={key: t.task.flow.rate for key, t in group.items() if t.task.flow is not None},
            crossings={key: t.task.flow.crossings for key, t in group.items() if t.task.flow is not None},
        )
        for link in links:
            carried = sum(rates[key] * _times(transfer, link) for key, transfer in self._on[link].items())
            self.series.setdefault(link, {0.0: 0.0})[time] = carried


def _times(transfer: Record, link: Link) -> float:
    """How many times its rate a transfer puts on a link."""
    flow = transfer.task.flow
    return flow.crossings[flow.links.index(link)] if flow is not None and flow.crossings else 1.0


def _links(transfer: Record) -> tuple[Link, ...]:
    return () if transfer.task.flow is None else transfer.task.flow.links
