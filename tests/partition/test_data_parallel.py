"""Data-parallel traffic and memory: the closed forms of ZeRO (Rajbhandari 2020) and FSDP (Zhao 2023)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.memory.shards import gradient_bytes, weight_bytes
from simulator.partition.data import Bucket, DataParallel, Sharding
from simulator.partition.optimizer import Optimizer
from simulator.partition.plan import plan_run
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec
from simulator.spec.sharding import FullySharded

SENT = {"all_reduce": 2.0, "reduce_scatter": 1.0, "all_gather": 1.0}  # times (n − 1)/n of nccl-tests' size
BUCKET = Bucket(parameters=12e6, first_layer=0, stop_layer=1)


def data(zero: int, replicas: int, grad: str = "fp32", **changes: object) -> DataParallel:
    made = DataParallel(
        replicas=replicas,
        zero=zero,
        grad_dtype=grad,
        bucket_elements=40e6,
        optimizer=Optimizer(),
        loss_scaling=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def sent_per_parameter(d: DataParallel, gathers: int) -> float:
    """Bytes a rank sends per parameter in a step of one microbatch, divided by (n − 1)/n."""
    ops = [*d.reduce_gradients(BUCKET, "g")]
    gather = d.gather_parameters(BUCKET, "p")
    ops += [gather] * gathers if gather is not None else []
    return sum(SENT[op.kind] * op.size_bytes for op in ops) / BUCKET.parameters


@pytest.mark.parametrize(
    ("zero", "grad", "gathers", "expected"),
    [(0, "fp32", 1, 8), (1, "fp32", 1, 6), (1, "bf16", 1, 4), (3, "fp32", 2, 8), (3, "bf16", 2, 6)],
)
def test_bytes_sent_per_parameter(zero: int, grad: str, gathers: int, expected: float) -> None:
    assert sent_per_parameter(data(zero, 8, grad), gathers) == pytest.approx(expected)


@given(group=st.sampled_from([2, 4, 8]), groups=st.sampled_from([2, 3, 16]), zero=st.sampled_from([1, 2, 3]))
def test_sharding_inside_a_group_sends_only_shards_across(group: int, groups: int, zero: int) -> None:
    hybrid = data(zero, group * groups, shard_ranks=group)
    inside, across = hybrid.reduce_gradients(BUCKET, "g")
    assert (inside.kind, inside.axis) == ("reduce_scatter", "shard")
    assert (across.kind, across.axis) == ("all_reduce", "replicate")
    assert across.size_bytes * group == inside.size_bytes == BUCKET.parameters * 4
    gather = hybrid.gather_parameters(BUCKET, "p")
    assert gather is not None and gather.axis == "shard"
    assert hybrid.shard(1.0) == 1 / group


@given(layers=st.lists(st.floats(1e5, 3e8), min_size=1, max_size=40), zero=st.integers(0, 3))
@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("cut_all", [True, False])
def test_buckets_hold_every_parameter_once(cut: bool, cut_all: bool, layers: list[float], zero: int) -> None:
    d = data(zero, 8, cut_all=cut_all, bucket_elements=6.5e6)
    buckets = d.buckets(tuple(layers), cut=cut)
    assert sum(b.parameters for b in buckets) == pytest.approx(sum(layers))
    assert [b.first_layer for b in buckets] == [b.stop_layer for b in buckets[1:]] + [0]
    if zero == 3:
        assert len(buckets) == len(layers)
    elif not cut and not cut_all:
        assert len(buckets) == 1
    elif cut_all:
        assert all(b.parameters / b.messages <= 6.5e6 for b in buckets)
    for bucket in buckets:
        sizes = [op.size_bytes for op in d.reduce_gradients(bucket, "g")]
        assert sum(sizes) == pytest.approx(bucket.parameters * 4)


def run_of(zero: int, gpus: int = 16, **fsdp: object) -> RunSpec:
    run = load_run("llama3-8b-8-h100")
    return replace(
        run,
        gpus=gpus,
        parallelism=replace(
            run.parallelism,
            tp=1,
            dp=gpus,
            zero=zero,
            sequence_parallel=None,
            fsdp=FullySharded(**fsdp),  # type: ignore[arg-type]
        ),
        training=replace(run.training, global_batch_size=2 * gpus),
    )


def test_weight_gradients_of_one_microbatch_are_written_and_not_added() -> None:
    def weight_gradients(run: RunSpec) -> list[bool]:
        layer = plan_run(run).chunks[0].layers[1]
        return [s.op.accumulate for s in layer.backward.steps if getattr(s.op, "role", "") == "wgrad"]

    assert not any(weight_gradients(run_of(3)))
    assert all(weight_gradients(run_of(3, gradient_sync="step")))
    assert all(weight_gradients(run_of(2)))


def static_bytes(run: RunSpec) -> float:
    plan = plan_run(run)
    parameters = sum(chunk.parameters for chunk in plan.chunks)
    states = plan.data.shard(parameters) * 12
    return weight_bytes(plan.data, plan.chunks) + gradient_bytes(plan.data, plan.chunks) + states


@given(gpus=st.sampled_from([1, 2, 8, 64, 1024]))
@settings(deadline=None)
def test_memory_never_rises_with_the_stage(gpus: int) -> None:
    stages = [static_bytes(run_of(zero, gpus)) for zero in range(4)]
    assert stages == sorted(stages, reverse=True)


def test_static_bytes_per_parameter() -> None:
    """Megatron-LM's table for its distributed optimizer: 18, and 6 + 12/D with fp32 gradients."""
    plan = plan_run(run_of(0))
    parameters = sum(chunk.parameters for chunk in plan.chunks)
    assert static_bytes(run_of(0)) == pytest.approx(18 * parameters)
    assert static_bytes(run_of(1)) == pytest.approx((6 + 12 / 16) * parameters)
    whole = run_of(3, 2**20, buffers="in-place")  # what is left are the units that are whole
    units = sorted(layer.parameters for layer in plan.chunks[0].layers)
    assert static_bytes(whole) == pytest.approx((2 + 4) * (units[-1] + units[0]), rel=1e-3)
    shard_only = static_bytes(run_of(3, 16, buffers="in-place")) - static_bytes(whole)
    assert shard_only == pytest.approx((2 + 4 + 12) / 16 * parameters, rel=1e-3)


def test_what_stays_gathered_costs_memory() -> None:
    freed, kept = static_bytes(run_of(3)), static_bytes(run_of(3, reshard_after_forward=False))
    parameters = sum(chunk.parameters for chunk in plan_run(run_of(3)).chunks)
    assert freed < kept < freed + 2 * parameters
    assert static_bytes(run_of(3, prefetch=4)) > freed
    whole = static_bytes(run_of(3, gradient_sync="step", buffers="in-place"))
    assert whole == pytest.approx(freed + 4 * parameters, rel=0.1)


def test_copies_of_fsdp2_move_each_parameter_once_and_join_each_gradient() -> None:
    d = data(3, 8, sharding=Sharding(buffers="copied"))
    (out,), (join,) = d.after_gather(BUCKET), d.before_reduction(BUCKET)
    assert out.bytes == pytest.approx(4 * BUCKET.parameters)
    assert join.bytes == pytest.approx((2 + 4) * BUCKET.parameters)
    flat = data(3, 8, sharding=Sharding(buffers="flat"))
    assert flat.after_gather(BUCKET) == ()
    assert sum(op.bytes for op in flat.beside_reduction(BUCKET)) == pytest.approx((6 + 8) * BUCKET.parameters)
    assert data(3, 8).before_reduction(BUCKET) == data(3, 8).beside_reduction(BUCKET) == ()


@pytest.mark.parametrize(
    ("pp", "options", "keep", "reduce"),
    [
        (1, {}, "forward", "microbatch"),
        (1, {"reshard_after_forward": False}, "backward", "microbatch"),
        (1, {"reshard_after_backward": False}, "step", "microbatch"),
        (2, {}, "step", "step"),
        (2, {"reshard_after_backward": True}, "backward", "step"),
        (2, {"reshard_after_forward": True, "gradient_sync": "microbatch"}, "forward", "microbatch"),
    ],
)
def test_a_pipeline_keeps_parameters_unless_asked(
    pp: int, options: dict[str, object], keep: str, reduce: str
) -> None:
    run = run_of(3, **options)
    sharding = plan_run(replace(run, parallelism=replace(run.parallelism, pp=pp, dp=16 // pp))).data.sharding
    assert (sharding.keep, sharding.reduce) == (keep, reduce)
