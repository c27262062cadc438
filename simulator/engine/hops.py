"""Messages between pipeline devices: how long they take, and which way a stage's outputs go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from simulator.engine.costing import OperatorCosts
from simulator.engine.messages import Pipeline
from simulator.engine.tasks import Flow
from simulator.partition.plan import RunPlan
from simulator.schedule.actions import Action


class Way(NamedTuple):
    """Of a stage's outputs to the next device. Tokens lack their last part, the microbatch."""

    stream: str
    seconds: float
    flow: Flow | None
    after: tuple[int, ...]
    token: tuple[int, ...]


class Hops:
    """The messages of one run, each kind worked out once.

    ``costs``: of messages from device i to i + 1; the last one wraps round.
    """

    def __init__(self, plan: RunPlan, pipeline: Pipeline, costs: Sequence[OperatorCosts]) -> None:
        self._plan = plan
        self._pipeline = pipeline
        self._costs = costs
        self._hops: dict[tuple[int, int], tuple[float, Flow | None]] = {}
        self._ways: dict[tuple[int, int, int], Way | None] = {}

    def seconds(self, size_bytes: float, device: int) -> float:
        """Of a message of any size from a device to the next."""
        return self._costs[device].hop(size_bytes, device)

    def hop(self, source: int, target: int) -> tuple[float, Flow | None]:
        """Seconds of a message between neighbours on the ring of devices, and what it puts on their NICs."""
        known = self._hops.get((source, target))
        if known is None:
            hop = min(source, target) if abs(source - target) == 1 else max(source, target)
            costs, size = self._costs[hop], self._plan.crossing_bytes(hop)
            flow = costs.hop_flow(size, source, target, hop)
            known = self._hops[source, target] = (costs.hop(size, hop), flow)
        return known

    def way(self, action: Action) -> Way | None:
        """Where the output of an action goes, which is the same for every microbatch."""
        key = (action.stage, action.direction, int(action.kind))
        if key not in self._ways:
            message = self._pipeline.output_of(action)
            way = None
            if message is not None:
                hop = self.hop(message.source, message.target)
                way = Way(message.stream, *hop, message.after[:-1], message.token[:-1])
            self._ways[key] = way
        return self._ways[key]
