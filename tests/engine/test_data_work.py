"""What data parallelism takes is worked out once for all that are alike; links are each device's own."""

from __future__ import annotations

import pytest

from simulator.cost.estimate import Estimate
from simulator.engine.block import Blocks
from simulator.engine.costing import NIC_IN, NIC_OUT, OperatorCosts
from simulator.engine.data_work import DataWork
from simulator.graph.operators import Axis, MemoryBound
from simulator.network.estimate import TransferEstimate
from simulator.network.flows import Load
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import Bucket, DataParallel
from simulator.partition.optimizer import Optimizer
from simulator.partition.segment import SegmentBuilder


class OverNics:
    """Everything takes a second, and collectives carry all of their bytes over the NICs."""

    uplinks = ()
    nic_bandwidth = scale_up_bandwidth = 1e12

    def estimate(self, op: MemoryBound) -> Estimate:
        return Estimate(1.0, "work", 0.0, 0.0)

    def collective(self, kind: str, size_bytes: float, axis: str) -> TransferEstimate:
        return TransferEstimate(1.0, "ring", "Simple", 0.0, 0.0)

    def collective_load(self, kind: str, size_bytes: float, axis: str) -> Load:
        return Load(nic=size_bytes)


@pytest.fixture
def costs() -> OperatorCosts:
    return OperatorCosts(OverNics(), OverNics())


@pytest.fixture
def data(costs: OperatorCosts) -> DataWork:
    plan = DataParallel(
        replicas=4,
        zero=1,
        grad_dtype="fp32",
        bucket_elements=1e9,
        optimizer=Optimizer(),
        loss_scaling=False,
        expert_replicas=2,
    )
    return DataWork(plan, costs)


def bucket(parameters: float, first_layer: int = 0, axis: Axis = "dp_cp") -> Bucket:
    return Bucket(parameters=parameters, first_layer=first_layer, stop_layer=first_layer + 1, axis=axis)


def chunk(*buckets: Bucket) -> ChunkShare:
    return ChunkShare(layers=(), buckets=buckets)


def test_buckets_of_one_size_take_the_same_wherever_they_begin(data: DataWork) -> None:
    assert data.bucket(bucket(8.0)) == data.bucket(bucket(8.0, first_layer=3))
    assert data.bucket(bucket(8.0)) != data.bucket(bucket(9.0))


def test_of_each_communicator_the_heaviest_collective_presses_on_links(data: DataWork) -> None:
    reduced = dict.fromkeys((NIC_OUT, NIC_IN), 4.0 * 9.0)  # bytes of fp32 gradients in a second
    assert data.presses([chunk(bucket(9.0), bucket(8.0, 1))]) == reduced
    assert data.presses([chunk(bucket(9.0)), chunk(bucket(8.0))]) == reduced
    experts = data.presses([chunk(bucket(9.0), bucket(5.0, axis="edp"))])
    assert experts == dict.fromkeys((NIC_OUT, NIC_IN), 4.0 * 14.0)


@pytest.mark.parametrize("meets", [False, True])
def test_collectives_cross_the_links_of_their_device(data: DataWork, meets: bool) -> None:
    gather = data.bucket(bucket(8.0)).gather
    assert gather is not None
    for device in (0, 3):
        _, task = data.on(device, meets=meets).collective(gather, "dp", (), "gathered")
        assert task.flow is not None
        assert task.flow.links == ((NIC_OUT, device), (NIC_IN, device))
        assert (task.meeting is not None) == meets


def test_runs_of_one_segment_differ_in_the_label_of_their_tokens(costs: OperatorCosts) -> None:
    builder, blocks = SegmentBuilder(), Blocks(costs)
    for name in ("first", "second"):
        builder.compute(MemoryBound(name=name, kind="work", read_bytes=1.0, write_bytes=0.0))
    segment = builder.build()
    first, second = ([task for _, task in blocks.operators(segment, label, meets=True)] for label in "ab")
    assert {task.signal[0] for task in first} == {"a"}  # type: ignore[index]
    assert {task.signal[0] for task in second} == {"b"}  # type: ignore[index]
    assert [(task.name, task.seconds) for task in first] == [(task.name, task.seconds) for task in second]
    assert [len(task.waits) for task in first] == [len(task.waits) for task in second]
