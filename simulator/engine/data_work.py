"""What data parallelism does in a step, worked out once for all buckets and devices that are alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from simulator.engine.costing import OperatorCosts
from simulator.engine.device_costs import DeviceCosts
from simulator.engine.tasks import COMPUTE, Task
from simulator.graph.operators import Collective, Copy, Operator
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import Bucket, DataParallel
from simulator.partition.tensor import TensorParallel

DP = "dp"
STREAMS = {
    "dp_cp": DP,
    "edp": "edp",
    "shard": DP,
    "replicate": "replicate",
}  # the groups' communicators run beside each other


class BucketWork(NamedTuple):
    """How a bucket's parameters come and its gradients go, first to last.

    Parameters: the shard is ``fetched`` from the host, ``cast``, gathered, and copied out of a buffer.
    Gradients: kernels on the compute stream and ``beside`` it, collectives, and what leaves for the host.
    """

    fetched: tuple[Copy, ...]
    cast: Task
    gather: Collective | None
    copied: Task
    prepared: Task | None
    beside: Task
    reductions: tuple[Collective, ...]
    leaving: tuple[Copy, ...]


class UpdateWork(NamedTuple):
    """From reduced gradients to updated parameters: those that a tensor-parallel group holds in common are
    ``summed``; seconds up to the norm, and of the element-wise step."""

    summed: Collective | None
    norm_s: float
    step_s: float


class DataWork:
    """Of runs that divide data alike, where their operators have these costs."""

    def __init__(self, data: DataParallel, costs: OperatorCosts) -> None:
        self._data = data
        self._costs = costs
        self._gathered = "unit" if data.fully_sharded else "parameters"
        self._buckets: dict[Bucket, BucketWork] = {}
        self._updates: dict[tuple[float, ...], UpdateWork] = {}
        self._presses: dict[tuple[Bucket, ...], Mapping[str, float]] = {}
        self._devices: dict[tuple[int, bool], DeviceCosts] = {}

    def on(self, device: int, *, meets: bool) -> DeviceCosts:
        """The costs of one device, whose collectives are meetings of their groups or not."""
        found = self._devices.get((device, meets))
        if found is None:
            found = self._devices[device, meets] = DeviceCosts(self._costs, device, meets=meets)
        return found

    def bucket(self, bucket: Bucket) -> BucketWork:
        """What a bucket takes."""
        found = self._buckets.get(bucket)
        if found is None:
            found = self._buckets[bucket] = self._bucket(bucket)
        return found

    def update(self, chunks: Sequence[ChunkShare], tensor: TensorParallel) -> UpdateWork:
        """What the update takes on a device that holds these chunks."""
        parameters = sum([chunk.parameters for chunk in chunks])
        experts = sum([chunk.expert_parameters for chunk in chunks])
        common = 0.0
        if tensor.splits_tokens and tensor.size > 1:
            common = sum([chunk.replicated_parameters for chunk in chunks])
        key = (parameters, experts, common)
        found = self._updates.get(key)
        if found is None:
            found = self._updates[key] = self._update(*key)
        return found

    def presses(self, chunks: Iterable[ChunkShare]) -> Mapping[str, float]:
        """The most bytes/s that gathers and reductions of chunks together ask of each kind of link."""
        buckets = tuple([bucket for chunk in dict.fromkeys(chunks) for bucket in chunk.buckets])
        found = self._presses.get(buckets)
        if found is None:
            found = self._presses[buckets] = self._pressed(buckets)
        return found

    def _bucket(self, bucket: Bucket) -> BucketWork:
        data, costs = self._data, self._costs
        before = data.before_reduction(bucket)
        return BucketWork(
            data.fetch_shard(bucket),
            kernels(data.before_gather(bucket), costs),
            data.gather_parameters(bucket, self._gathered),
            kernels(data.after_gather(bucket), costs),
            kernels(before, costs) if before else None,
            kernels(data.beside_reduction(bucket), costs),
            data.reduce_gradients(bucket, "gradients"),
            data.leave_shard(bucket),
        )

    def _pressed(self, buckets: Iterable[Bucket]) -> dict[str, float]:
        rates: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for work in map(self.bucket, buckets):
            for op in work.reductions if work.gather is None else (work.gather, *work.reductions):
                flow, stream = self._costs.flow(op), STREAMS[op.axis]
                for kind, rate in flow.demands if flow is not None else ():
                    rates[kind][stream] = max(rate, rates[kind].get(stream, 0.0))
        return {kind: sum(streams.values()) for kind, streams in rates.items()}

    def _update(self, parameters: float, experts: float, common: float) -> UpdateWork:
        data, costs, summed = self._data, self._costs, None
        if common:
            size = common * data.grad_bytes
            summed = Collective(name="norm_gradients", kind="all_reduce", axis="tp", size_bytes=size)
        shard = data.shard(parameters, experts)
        after = data.after_norm(shard, parameters)
        return UpdateWork(summed, costs.total(data.before_norm(shard)), costs.total(after))


def kernels(ops: Sequence[Operator], costs: OperatorCosts) -> Task:
    """Kernels one after the other as one task, counted under the first one's category."""
    category = costs.cost(ops[0]).category if ops else COMPUTE
    return Task(ops[0].name if ops else "nothing", category, costs.total(ops))
