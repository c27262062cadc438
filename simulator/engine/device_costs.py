"""Communication as one device has it: over its own links, in time with its group."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.engine.block import Placed
from simulator.engine.costing import OWN, Cost, OperatorCosts
from simulator.engine.tasks import Flow, Meeting, Task, Token
from simulator.graph.operators import Collective


class DeviceCosts:
    """Costs of operators on one device. ``meets``: its collectives are meetings of their groups; else it
    stands for all their ranks."""

    def __init__(self, costs: OperatorCosts, device: int, *, meets: bool = True) -> None:
        self.of_any = costs
        self._device = device
        self._meets = meets
        self._flows: dict[int, tuple[Flow, Flow]] = {}  # by identity: of any device, and own
        self._known: dict[Collective, tuple[Cost, Flow | None]] = {}

    def own_links(self, placed: Iterable[Placed]) -> list[Placed]:
        """Tasks of any device, with their flows on this one's links."""
        return [
            Placed(stream, task._replace(flow=self._own(task.flow)) if task.flow else task)
            for stream, task in placed
        ]

    def _own(self, flow: Flow) -> Flow:
        """Collectives that are alike have one flow between them."""
        known = self._flows.get(id(flow))
        if known is None:
            links = tuple([(link, self._device if device == OWN else device) for link, device in flow.links])
            known = self._flows[id(flow)] = (flow, flow._replace(links=links))
        return known[1]

    def collective(
        self,
        op: Collective,
        stream: str,
        waits: tuple[Token, ...],
        signal: Token,
        *,
        known_as: Token = None,
        name: str = "",
    ) -> Placed:
        """A collective of the device's group.

        ``known_as``: what all its members call it, where they signal its end by different tokens; ``name``:
        of the task, where that says more than the collective's own.
        """
        known = self._known.get(op)
        if known is None:
            flow = self.of_any.flow(op)
            known = self._known[op] = (self.of_any.cost(op), None if flow is None else self._own(flow))
        cost, own = known
        meeting = Meeting((op.axis, signal if known_as is None else known_as), 0) if self._meets else None
        holds, name = self.of_any.communication_share, name or op.name
        return Placed(
            stream, Task(name, cost.category, cost.seconds, waits, signal, meeting, None, own, holds)
        )
