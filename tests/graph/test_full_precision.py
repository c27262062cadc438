"""Training in fp32: the same FLOPs on tensors of twice the width."""

from __future__ import annotations

import pytest

from simulator.graph.operators import Collective
from simulator.memory.shards import optimizer_bytes, weight_bytes
from simulator.partition.plan import RunPlan, plan_run
from simulator.spec.errors import SpecError
from simulator.spec.load import load_run

RUN = "megatron-22b-8-a100-full-recompute"


def plan(precision: str) -> RunPlan:
    keys = [
        "runtime.attention=unfused",
        "parallelism={tp: 8, pp: 1, zero: 0}",
        "training.recompute.granularity=none",
    ]
    return plan_run(load_run(RUN, [*keys, f"training.precision={precision}"]))


def messages(plan: RunPlan) -> float:
    layer = plan.chunks[0].layers[1]
    return sum(step.op.size_bytes for step in layer.forward.steps if isinstance(step.op, Collective))


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_activations_and_messages_are_twice_as_wide(precision: str) -> None:
    narrow, wide = plan("fp16"), plan(precision)
    assert wide.flops_per_replica == narrow.flops_per_replica
    assert messages(wide) == 2 * messages(narrow)
    assert wide.message_bytes == 2 * narrow.message_bytes
    saved = [p.chunks[0].layers[1].saved_bytes for p in (narrow, wide)]
    assert 1.7 < saved[1] / saved[0] < 2.0  # masks of one byte stay


def test_weights_need_no_master_copy() -> None:
    """fp32: weight and two moments; 16 bits: a weight, an fp32 master and two moments."""
    for precision, held in (("fp32", 12), ("fp16", 14)):
        optimizer = plan(precision).data.optimizer
        assert optimizer.state_bytes + optimizer.parameter_bytes == held


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_sharded_weights_take_8_bytes_and_8_over_the_ranks(zero: int) -> None:
    """All fp32: weight 4 + gradient 4 + moments 8; ZeRO-1 shards the moments, ZeRO-3 everything."""
    keys = ["runtime.attention=unfused", "training.recompute.granularity=none", "training.precision=fp32"]
    keys += ["training.micro_batch_size=1", "runtime={attention: unfused}"]
    run = load_run(RUN, [*keys, f"parallelism={{tp: 2, zero: {zero}}}"])
    chunks, data = plan_run(run).chunks, plan_run(run).data
    parameters, ranks = chunks[0].parameters, 4
    assert optimizer_bytes(data, parameters, 0.0) == 8 * parameters / (ranks if zero else 1)
    if zero < 3:
        assert weight_bytes(data, chunks) == pytest.approx(4 * parameters)
    else:
        assert 4 * parameters / ranks < weight_bytes(data, chunks) < 4 * parameters
    gathers = [data.gather_parameters(bucket, "all") for bucket in chunks[0].buckets]
    gathered = sum(gather.size_bytes for gather in gathers if gather is not None)
    assert gathered == pytest.approx(4 * parameters if zero else 0.0)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["runtime.attention=flash"], "runtime.attention"),
        (["parallelism={tp: 8, offload: {optimizer: cpu}}"], "parallelism.offload.optimizer"),
        (["model=mixtral-8x7b"], "training.precision"),
    ],
)
def test_what_needs_16_bits_is_refused(settings: list[str], key: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(RUN, ["training.precision=fp32", *settings])
    assert key in {problem.key_path for problem in caught.value.problems}
