"""Seconds and categories of operators: kernels from the cost room, messages from the network room."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple, Protocol

from simulator.cost.estimate import KernelModel
from simulator.engine.host import HostCosts
from simulator.engine.tasks import Flow, Leaving
from simulator.engine.uplinks import directions
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
from simulator.network.flows import Load
from simulator.network.uplinks import Uplinks

DATA_AXES = frozenset({"dp", "dp_cp", "edp", "shard", "replicate"})
NIC_OUT, NIC_IN = "nic out", "nic in"  # a rank's share of its node's NICs, by direction
PORT_OUT, PORT_IN = "scale-up out", "scale-up in"  # its port of the scale-up domain
DEEPEP_SMS = 24  # processors of DeepEP's kernels inside a node, its tuned default there
OWN = -1  # in a link's name: the device that runs the task
FREE_HOST = HostCosts()
_COUNTED_AS = {
    "dp_cp": "dp",
    "edp": "dp",
    "shard": "dp",
    "tp_row": "tp",
    "tp_col": "tp",
    "tp_depth": "tp",
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
        self, size_bytes: float, axis: Axis, copies: int, limit: int = 0, *, sms: int = DEEPEP_SMS
    ) -> TransferEstimate:
        """An all-to-all whose rows cross the network once per node, by a kernel of so many processors."""
        ...

    @property
    def nic_bandwidth(self) -> float:
        """One rank's share of its node's NICs, bytes/s per direction."""
        ...

    @property
    def scale_up_bandwidth(self) -> float:
        """One rank's port of its scale-up domain, bytes/s per direction."""
        ...

    @property
    def uplinks(self) -> tuple[Uplinks, ...]:
        """Those of oversubscribed switches."""
        ...

    def collective_load(self, kind: CollectiveKind, size_bytes: float, axis: Axis) -> Load:
        """Bytes that a collective puts on them."""
        ...

    def node_limited_load(self, size_bytes: float, axis: Axis, copies: int, limit: int = 0) -> Load:
        """The same for a node-limited all-to-all."""
        ...

    def message_load(self, size_bytes: float, axis: Axis = "pp", stage: int = 0) -> Load:
        """The same for a message."""
        ...


class Cost(NamedTuple):
    """An operator's time, the category it counts under, and its relative errors."""

    seconds: float
    category: str
    random: float
    site: float
    issue_s: float  # the host's time to issue it
    delay_s: float = 0.0  # what a slow rank takes beyond ``seconds``


NOTHING = Cost(0.0, "", 0.0, 0.0, 0.0)


def exposed(axis: str) -> str:
    """The category of communication that the compute stream waits for."""
    return f"exposed_{_COUNTED_AS.get(axis, axis)}"


PP = exposed("pp")


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
        self._flows: dict[Collective | SendRecv, Flow | None] = {}
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
        """What such a message from one device to another puts on their NICs, or ports in a domain."""
        load, seconds = self._network.message_load(size_bytes, "pp", stage), self.hop(size_bytes, stage)
        if load.scale_up:
            ports = ((PORT_OUT, source), (PORT_IN, target))
            return Flow(ports, min(load.scale_up / seconds, self.capacities[PORT_OUT]))
        if not load.nic:
            return None
        rate, leaving = min(load.nic / seconds, self.capacities[NIC_OUT]), []
        for level, up in enumerate(self.uplinks):
            crossing = up.most_crossing(source, target)
            if crossing:
                rate = min(rate, up.bandwidth / crossing)
                leaving.append(Leaving(level, up.name, 1.0, target))
        return Flow(((NIC_OUT, source), (NIC_IN, target)), rate, (), tuple(leaving))

    def flow(self, op: Collective | SendRecv) -> Flow | None:
        """What communication puts on the links of whichever device runs it."""
        if op not in self._flows:
            self._flows[op] = self._flow(op)
        return self._flows[op]

    def _flow(self, op: Collective | SendRecv) -> Flow | None:
        load, seconds = self.load(op), self.cost(op).seconds
        if not seconds or not (load.nic or load.scale_up):
            return None
        nic = min(load.nic / seconds, self.capacities[NIC_OUT])
        port = min(load.scale_up / seconds, self.capacities[PORT_OUT])
        nics, ports = ((NIC_OUT, OWN), (NIC_IN, OWN)), ((PORT_OUT, OWN), (PORT_IN, OWN))
        if not nic:
            return Flow(ports, port)
        leaving = self._leaving(load)
        for leave in leaving:
            up = self.uplinks[leave.level]
            nic = min(nic, up.bandwidth / (up.most_below() * leave.share))
        times = port / nic  # each channel through a NIC passes several ports: each counts as a flow there
        if not port:
            return Flow(nics, nic, (), leaving)
        return Flow((*nics, *ports), nic, (1.0, 1.0, times, times), leaving)

    def _leaving(self, load: Load) -> tuple[Leaving, ...]:
        """What part of a transfer's NIC traffic crosses which uplinks."""
        crossing = zip(self.uplinks, load.leaving, strict=True) if load.leaving else ()
        return tuple(
            Leaving(level, up.name, carried / load.nic)
            for level, (up, carried) in enumerate(crossing)
            if carried
        )

    def load(self, op: Collective | SendRecv) -> Load:
        """Bytes it puts on a rank's links."""
        if isinstance(op, SendRecv):
            return self._network.message_load(op.size_bytes, op.axis)
        network = self._network_of(op.axis)
        if op.copies:
            return network.node_limited_load(op.size_bytes, op.axis, op.copies, op.node_limit)
        return network.collective_load(op.kind, op.size_bytes, op.axis)

    @cached_property
    def capacities(self) -> dict[str, float]:
        """Bytes/s of each kind of link that flows name."""
        nics = dict.fromkeys((NIC_OUT, NIC_IN), self._network.nic_bandwidth)
        ports = dict.fromkeys((PORT_OUT, PORT_IN), self._network.scale_up_bandwidth)
        ups = {kind: up.bandwidth for up in self.uplinks for kind in (up.name, *directions(up.name))}
        return nics | ports | ups

    @property
    def uplinks(self) -> tuple[Uplinks, ...]:
        """Those of oversubscribed switches, which ranks below one have in common."""
        return self._network.uplinks

    def total(self, ops: Iterable[Operator]) -> float:
        """Seconds of operators one after the other."""
        costs = [self.cost(op) for op in ops]
        return sum(cost.seconds for cost in costs) + sum(cost.delay_s for cost in costs)

    def _compute(self, op: Operator) -> Cost:
        if isinstance(op, Awaited):
            work = self.cost(op.work)
            own = self.cost(op.beyond) if op.beyond is not None else NOTHING
            waited_s = max(0.0, work.seconds + work.delay_s - own.seconds - own.delay_s)
            return Cost(waited_s, exposed(op.axis), work.random, work.site, 0.0)
        issue_s = self.host.issue(op, getattr(op, "kernels", 1))
        if isinstance(op, Collective):
            transfer = self.transfer(op)
            return Cost(transfer.seconds, exposed(op.axis), transfer.random, transfer.site, issue_s)
        if isinstance(op, SendRecv):
            transfer = self._network.send_recv(op.size_bytes, op.axis)
            return Cost(transfer.seconds, exposed(op.axis), transfer.random, transfer.site, issue_s)
        kernel = self._kernels.estimate(op)
        delay_s = 0.0 if isinstance(op, Copy | HostUpdate) else kernel.seconds * (1.0 / self._speed - 1.0)
        return Cost(kernel.seconds, kernel.kernel_class, kernel.random, kernel.site, issue_s, delay_s)

    def transfer(self, op: Collective) -> TransferEstimate:
        """A collective running alone: its time, and the algorithm and protocol that reach it."""
        if op.copies:
            sms = 0 if op.bulk else DEEPEP_SMS
            return self._network.node_limited_all_to_all(
                op.size_bytes, op.axis, op.copies, op.node_limit, sms=sms
            )
        return self._network_of(op.axis).collective(op.kind, op.size_bytes, op.axis)

    def _network_of(self, axis: Axis) -> NetworkModel:
        return self._slow_data if self._slow_data is not None and axis in DATA_AXES else self._network
