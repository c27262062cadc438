"""A pipeline made of plain numbers: stages whose forward, input and weight gradients take given times."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.cost.estimate import Estimate
from simulator.engine.block import Blocks
from simulator.engine.costing import OperatorCosts
from simulator.engine.options import StepOptions
from simulator.engine.step import StepReplay, run_step
from simulator.engine.world import Layout
from simulator.graph.operators import MemoryBound
from simulator.network.estimate import TransferEstimate
from simulator.network.flows import Load
from simulator.partition.chunk import ChunkShare
from simulator.partition.data import DataParallel
from simulator.partition.layer_share import LayerShare
from simulator.partition.optimizer import Optimizer
from simulator.partition.plan import RunPlan
from simulator.partition.segment import SegmentBuilder
from simulator.partition.tensor import TensorParallel
from simulator.schedule.registry import SCHEDULES


class SecondsAsBytes:
    """A kernel takes as many seconds as it reads bytes; messages take a fixed time."""

    def __init__(self, message_s: float = 0.0) -> None:
        self.message_s = message_s

    def estimate(self, op: MemoryBound) -> Estimate:
        return Estimate(op.read_bytes if op.kind == "work" else 0.0, "work", 0.0, 0.0)

    def collective(self, kind: str, size_bytes: float, axis: str) -> TransferEstimate:
        return TransferEstimate(0.0, "none", "none", 0.0, 0.0)

    def send_recv(self, size_bytes: float, axis: str = "pp", stage: int = 0) -> TransferEstimate:
        return TransferEstimate(self.message_s, "p2p", "Simple", 0.0, 0.0)

    nic_bandwidth = scale_up_bandwidth = 1.0
    uplinks = ()

    def collective_load(self, kind: str, size_bytes: float, axis: str) -> Load:
        return Load()

    def message_load(self, size_bytes: float, axis: str = "pp", stage: int = 0) -> Load:
        return Load()


def work(name: str, seconds: float) -> MemoryBound:
    return MemoryBound(name=name, kind="work", read_bytes=seconds, write_bytes=0.0)


def layer(forward: float, input_gradient: float, weight_gradient: float) -> LayerShare:
    ahead, back = SegmentBuilder(), SegmentBuilder()
    ahead.compute(work("F", forward))
    back.compute(work("I", input_gradient))
    back.beside(work("W", weight_gradient))
    return LayerShare(
        kind="test",
        forward=ahead.build(),
        backward=back.build(),
        parameters=1.0,
        replicated_parameters=0.0,
        saved_bytes=1.0,
        working_bytes=0.0,
        gathered_bytes=0.0,
    )


def plan(stages: list[tuple[float, float, float]], microbatches: int) -> RunPlan:
    data = DataParallel(
        replicas=1, zero=0, grad_dtype="fp32", bucket_elements=1e9, optimizer=Optimizer(), loss_scaling=False
    )
    chunks = tuple(
        ChunkShare(layers=(layer(*times),), buckets=data.buckets((1.0,), cut=False))
        for i, times in enumerate(stages)
    )
    return RunPlan(
        chunks=chunks,
        data=data,
        tensor=TensorParallel(size=1, sequence=False),
        message_bytes=1.0,
        message_gather=None,
        tied_embedding_bytes=0.0,
        microbatches=microbatches,
        padded_vocab_size=128,
    )


Pipeline = Callable[..., StepReplay]


@pytest.fixture
def pipeline() -> Pipeline:
    def run(
        name: str,
        p: int,
        m: int,
        v: int,
        times: tuple[float, float, float],
        *,
        message_s: float = 0.0,
        overlap_p2p: bool | None = None,
        fold_steady_state: bool = True,
        quiet_steps: bool = True,
        post_validation: bool = False,
    ) -> StepReplay:
        """``times`` are F, B, W of a device's whole share of a microbatch."""
        schedule = SCHEDULES[name]
        stages = p if schedule.directions == 2 else p * v
        share = 1 if schedule.directions == 2 else v
        costs = OperatorCosts(SecondsAsBytes(), SecondsAsBytes(message_s))
        overlap = schedule.default_overlap_p2p if overlap_p2p is None else overlap_p2p
        options = StepOptions(
            overlap_grad_reduce=True,
            overlap_param_gather=True,
            overlap_p2p=overlap,
            fold_steady_state=fold_steady_state,
            quiet_steps=quiet_steps,
            post_validation=post_validation,
        )
        chunk_times = tuple(t / share for t in times)
        return run_step(
            plan([chunk_times] * stages, m),
            schedule,
            Layout(tp=1, dp=1, devices=p),
            v,
            Blocks(costs),
            options,
        )

    return run
