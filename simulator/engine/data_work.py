"""What data parallelism does in a step, worked out once for all buckets and devices that are alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from simulator.engine.costing import OperatorCosts
from simulator.engine.tasks import COMPUTE, Task
from simulator.graph.operators import Axis, Collective, Copy, Operator
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import Bucket
from simulator.partition.plan import RunPlan

DP = "dp"
STREAMS = {
    "dp_cp": DP,
    "edp": "edp",
    "shard": DP,
    "replicate": "replicate",
}  # the groups' communicators run beside each other

Chunks: TypeAlias = tuple[ChunkShare, ...]


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
    """From reduced gradients to updated parameters.

    Before the norm replicated gradients are summed, and their squares; after it come a matrix optimizer's
    work on whole matrices, by axis, and the element-wise step.
    """

    summed: Collective | None
    norm_s: float
    matrices: tuple[tuple[Axis, Operator], ...]
    step_s: float


class DataWork:
    """Of one run, where its operators have these costs."""

    def __init__(self, plan: RunPlan, costs: OperatorCosts) -> None:
        self._plan = plan
        self._costs = costs
        self._gathered = "unit" if plan.data.fully_sharded else "parameters"
        self._alike: dict[tuple[object, ...], BucketWork] = {}
        self._buckets: dict[int, BucketWork] = {}  # by identity: the plan keeps them
        self._updates: dict[Chunks, UpdateWork] = {}
        self._presses: dict[Chunks, Mapping[str, float]] = {}

    def bucket(self, bucket: Bucket) -> BucketWork:
        """What a bucket takes."""
        found = self._buckets.get(id(bucket))
        if found is None:
            alike = (bucket.axis, bucket.parameters, bucket.gathered_bytes, bucket.messages)
            if alike not in self._alike:
                self._alike[alike] = self._bucket(bucket)
            found = self._buckets[id(bucket)] = self._alike[alike]
        return found

    def update(self, stages: Iterable[int]) -> UpdateWork:
        """What the update takes on a device that holds these stages."""
        chunks = self._chunks(stages)
        if chunks not in self._updates:
            self._updates[chunks] = self._update(chunks)
        return self._updates[chunks]

    def presses(self, stages: Iterable[int]) -> Mapping[str, float]:
        """The most bytes/s that gathers and reductions of stages together ask of each kind of link."""
        chunks = self._chunks(stages)
        if chunks not in self._presses:
            self._presses[chunks] = self._pressed(chunks)
        return self._presses[chunks]

    def _chunks(self, stages: Iterable[int]) -> Chunks:
        return tuple([self._plan.chunks[stage] for stage in stages])

    def _bucket(self, bucket: Bucket) -> BucketWork:
        data, costs = self._plan.data, self._costs
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

    def _pressed(self, chunks: Chunks) -> dict[str, float]:
        works = {id(w): w for chunk in dict.fromkeys(chunks) for w in map(self.bucket, chunk.buckets)}
        rates: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for work in works.values():
            for op in work.reductions if work.gather is None else (work.gather, *work.reductions):
                flow, stream = self._costs.flow(op), STREAMS[op.axis]
                for kind, rate in flow.demands if flow is not None else ():
                    rates[kind][stream] = max(rate, rates[kind].get(stream, 0.0))
        return {kind: sum(streams.values()) for kind, streams in rates.items()}

    def _update(self, chunks: Chunks) -> UpdateWork:
        plan, data, summed = self._plan, self._plan.data, None
        parameters = sum(chunk.parameters for chunk in chunks)
        shard = data.shard(parameters, sum(chunk.expert_parameters for chunk in chunks))
        if plan.tensor.splits_tokens and plan.tensor.size > 1:
            size = sum(chunk.replicated_parameters for chunk in chunks) * data.grad_bytes
            summed = Collective(name="norm_gradients", kind="all_reduce", axis="tp", size_bytes=size)
        norm_s = self._costs.total(data.before_norm(shard))
        step_s = self._costs.total(data.after_norm(shard, parameters))
        return UpdateWork(summed, norm_s, tuple(self._matrices(chunks)), step_s)

    def _matrices(self, chunks: Chunks) -> Iterator[tuple[Axis, Operator]]:
        layers = [layer for chunk in chunks for layer in chunk.layers]
        dense = tuple(matrix for layer in layers for matrix in layer.matrices)
        experts = tuple(matrix for layer in layers for matrix in layer.expert_matrices)
        yield from (("dp_cp", op) for op in self._plan.data.whole_matrices(dense, "dp_cp"))
        yield from (("edp", op) for op in self._plan.data.whole_matrices(experts, "edp"))


def kernels(ops: Sequence[Operator], costs: OperatorCosts) -> Task:
    """Kernels one after the other as one task, counted under the first one's category."""
    category = costs.cost(ops[0]).category if ops else COMPUTE
    return Task(ops[0].name if ops else "nothing", category, costs.total(ops))
