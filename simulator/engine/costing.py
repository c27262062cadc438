"""Seconds and categories of operators: kernels from the cost room, messages from the network room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from simulator.cost.estimate import KernelModel
from simulator.engine.host import HostCosts
from simulator.engine.tasks import Flow
from simulator.graph.operators import (
    Awaited,
    Axis,
    Collective,
    CollectiveKind,
    Copy,
    HostUpdate,
    Operator,
    SendRecv,
)
from simulator.network.estimate import TransferEstimate

DATA_AXES = frozenset({"dp", "dp_cp", "edp", "shard", "replicate"})
NIC_OUT, NIC_IN = "nic out", "nic in"  # a rank's share of its node's NICs, by direction
OWN = -1  # in a link's name: the device that runs the task
FREE_HOST = HostCosts()
_COUNTED_AS = {
    "dp_cp": "dp",
    "edp": "dp",
    "shard": "dp",
    "cp_inner": "cp",
    "cp_outer": "cp",
    "replicate": "dp",
    "etp": "ep",
}


class NetworkModel(Protocol):
    """Anything that can time messages."""

    def collective(self, kind: CollectiveKind, size_bytes: float, axis: Axis) -> TransferEstimate:
        """A collective over the group of an axis."""
        ...

    def send_recv(self, size_bytes: float, axis: Axis = "pp", stage: int = 0) -> TransferEstimate:
        """A message to the neighbour along an axis; for ``pp``, from a stage to the next (or round)."""
        ...

    def node_limited_all_to_all(
        self, size_bytes: float, axis: Axis, copies: int, limit: int = 0
    ) -> TransferEstimate:
        """An all-to-all whose rows cross the network once per node."""
        ...

    @property
    def nic_bandwidth(self) -> float:
        """One rank's share of its node's NICs, bytes/s per direction."""
        ...

    def nic_rate(self, kind: CollectiveKind, size_bytes: float, axis: Axis) -> float:
        """Bytes/s that a collective running alone puts on that share."""
        ...

    def hop_rate(self, size_bytes: float, stage: int) -> float:
        """The same for a message from a pipeline stage to the next."""
        ...


class Cost(NamedTuple):
    """An operator's time, the category it counts under, and its relative errors."""

    seconds: float
    category: str
    random: float
    site: float
    issue_s: float  # the host's time to issue it
    delay_s: float = 0.0  # what a slow rank takes beyond ``seconds``


def exposed(axis: str) -> str:
    """The category of communication that the compute stream waits for."""
    return f"exposed_{_COUNTED_AS.get(axis, axis)}"


class OperatorCosts:
    """Times operators on one cluster and layout.

    ``host`` times the issuing of kernels; ``communication_share`` is the share of the processors that a
    collective takes from a product beside it. ``speed`` is the rank's own, as a share of the usual;
    ``slow_data`` times collectives of data parallelism, where another member of their groups is slow.
    """

    def __init__(
        self,
        kernels: KernelModel,
        network: NetworkModel,
        host: HostCosts = FREE_HOST,
        communication_share: float = 0.0,
        *,
        speed: float = 1.0,
        slow_data: NetworkModel | None = None,
    ) -> None:
        self._kernels = kernels
        self._network = network
        self._slow_data = slow_data
        self._speed = speed
        self._known: dict[Operator, Cost] = {}
        self.host = host
        self.communication_share = communication_share

    def cost(self, op: Operator) -> Cost:
        """The cost of one operator running alone."""
        found = self._known.get(op)
        if found is None:
            found = self._known[op] = self._compute(op)
        return found

    def hop(self, size_bytes: float, stage: int) -> float:
        """Seconds of a message from a pipeline stage to the next."""
        return self._network.send_recv(size_bytes, "pp", stage).seconds

    def hop_flow(self, size_bytes: float, source: int, target: int, stage: int) -> Flow | None:
        """What such a message from one device to another puts on their NICs, ``None`` inside a domain."""
        rate = self._network.hop_rate(size_bytes, stage)
        return Flow(((NIC_OUT, source), (NIC_IN, target)), rate) if rate else None

    def flow(self, op: Collective) -> Flow | None:
        """What a collective puts on the NICs of whichever device runs it."""
        if op.copies:
            return None
        rate = self._network_of(op.axis).nic_rate(op.kind, op.size_bytes, op.axis)
        return Flow(((NIC_OUT, OWN), (NIC_IN, OWN)), rate) if rate else None

    @property
    def capacities(self) -> dict[str, float]:
        """Bytes/s of each kind of link that flows name."""
        return dict.fromkeys((NIC_OUT, NIC_IN), self._network.nic_bandwidth)

    def total(self, ops: Iterable[Operator]) -> float:
        """Seconds of operators one after the other."""
        costs = [self.cost(op) for op in ops]
        return sum(cost.seconds for cost in costs) + sum(cost.delay_s for cost in costs)

    def _compute(self, op: Operator) -> Cost:
        if isinstance(op, Awaited):
            work = self.cost(op.work)
            return Cost(work.seconds + work.delay_s, exposed(op.axis), work.random, work.site, 0.0)
        issue_s = self.host.issue(op, getattr(op, "kernels", 1))
        if isinstance(op, Collective):
            transfer = self._collective(op)
            return Cost(transfer.seconds, exposed(op.axis), transfer.random, transfer.site, issue_s)
        if isinstance(op, SendRecv):
            transfer = self._network.send_recv(op.size_bytes, op.axis)
            return Cost(transfer.seconds, exposed(op.axis), transfer.random, transfer.site, issue_s)
        kernel = self._kernels.estimate(op)
        delay_s = 0.0 if isinstance(op, Copy | HostUpdate) else kernel.seconds * (1.0 / self._speed - 1.0)
        return Cost(kernel.seconds, kernel.kernel_class, kernel.random, kernel.site, issue_s, delay_s)

    def _collective(self, op: Collective) -> TransferEstimate:
        if op.copies:
            return self._network.node_limited_all_to_all(op.size_bytes, op.axis, op.copies, op.node_limit)
        return self._network_of(op.axis).collective(op.kind, op.size_bytes, op.axis)

    def _network_of(self, axis: Axis) -> NetworkModel:
        return self._slow_data if self._slow_data is not None and axis in DATA_AXES else self._network
