"""A layer is at least as long as issuing it takes, unless its kernels are captured in a graph."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.cost.estimate import Estimate
from simulator.engine.block import Blocks
from simulator.engine.costing import OperatorCosts
from simulator.engine.host import GRAPH_LAUNCH_S, SOFTWARE, HostCosts
from simulator.graph.operators import Gemm, KernelOp, MemoryBound
from simulator.partition.segment import SegmentBuilder
from simulator.simulate import simulate
from simulator.spec.load import load_run

KERNELS = 10
PRODUCT = Gemm(name="product", m=1, n=1, k=1)
CAST = MemoryBound(name="cast", kind="cast", read_bytes=1.0, write_bytes=1.0, kernels=2)


class Microseconds:
    """Every kernel takes one."""

    def estimate(self, op: KernelOp) -> Estimate:
        return Estimate(1e-6, "gemm", 0.0, 0.0)


def seconds(host: HostCosts, op: KernelOp) -> float:
    out = SegmentBuilder()
    for _ in range(KERNELS):
        out.compute(op)
    return Blocks(OperatorCosts(Microseconds(), Microseconds(), host)).block(out.build()).seconds  # type: ignore[arg-type]


def test_small_kernels_wait_for_the_host() -> None:
    host = HostCosts(kernel_s=4e-6, software=SOFTWARE["megatron"])
    stack = host.software
    assert seconds(host, PRODUCT) == pytest.approx(KERNELS * (4e-6 + stack.operator_s + stack.product_s))
    assert seconds(host, CAST) == pytest.approx(KERNELS * (2 * 4e-6 + stack.operator_s))


def test_a_graph_is_one_launch_and_a_captured_step_none() -> None:
    assert seconds(HostCosts(kernel_s=4e-6, graphs="layer"), PRODUCT) == pytest.approx(GRAPH_LAUNCH_S)
    assert seconds(HostCosts(kernel_s=4e-6, graphs="full"), PRODUCT) == pytest.approx(KERNELS * 1e-6)


def test_work_of_unknown_shape_stays_outside_a_layers_graph() -> None:
    host = HostCosts(kernel_s=4e-6, graphs="layer")
    out = SegmentBuilder()
    for captured in (True, False, True):
        out.captured = captured
        for _ in range(KERNELS):
            out.compute(PRODUCT)
    costs = OperatorCosts(Microseconds(), Microseconds(), host)  # type: ignore[arg-type]
    assert Blocks(costs).block(out.build()).seconds == pytest.approx(GRAPH_LAUNCH_S + KERNELS * 4e-6)


def test_graphs_shorten_a_run_of_small_layers() -> None:
    run = load_run("llama3-8b-8-h100")
    small = replace(
        run,
        parallelism=replace(run.parallelism, tp=8, dp=1),
        training=replace(run.training, seq_length=512, global_batch_size=8),
    )
    times = [
        simulate(replace(small, runtime=replace(small.runtime, cuda_graphs=graphs))).step_time_s
        for graphs in ("none", "layer", "full")
    ]
    assert times[0] > times[1] >= times[2]
