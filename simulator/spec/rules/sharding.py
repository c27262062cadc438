"""Rules of data parallelism: what ZeRO and FSDP may shard, over whom, and which options belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

from simulator.spec.rules.layout import replica_size
from simulator.spec.rules.violation import Violation, divisors, near_choices
from simulator.spec.run import RunSpec, Runtime
from simulator.spec.sharding import FullySharded

FULLY_SHARDED = 3


def fully_sharded_options(run: RunSpec) -> Iterator[Violation]:
    """Options of fully sharded parameters belong to ZeRO stage 3."""
    p, default = run.parallelism, FullySharded()
    for key in fields(FullySharded):
        value = getattr(p.fsdp, key.name)
        if p.zero != FULLY_SHARDED and value != getattr(default, key.name):
            rule = f"belongs to zero 3; it is {p.zero} here"
            yield Violation(f"parallelism.fsdp.{key.name}", value, rule, "zero: 3, or leave it out")


def kept_for_the_step(run: RunSpec) -> Iterator[Violation]:
    """Parameters that stay gathered after a backward were not freed before it."""
    fsdp = run.parallelism.fsdp
    if fsdp.reshard_after_backward is False and fsdp.reshard_after_forward:
        rule = "a unit that is kept after its backward is kept after its forward too"
        yield Violation("parallelism.fsdp.reshard_after_forward", True, rule, "false, or leave it out")


def bucketed_options(run: RunSpec) -> Iterator[Violation]:
    """Fully sharded parameters have units, not buckets, whose traffic always runs beside compute."""
    p, runtime, default = run.parallelism, run.runtime, Runtime()
    if p.zero != FULLY_SHARDED:
        return
    keys = ["ddp_buckets", "ddp_bucket_elements", "overlap_grad_reduce", "overlap_param_gather"]
    if p.fsdp.buffers != "in-place":
        keys.append("average_in_collective")
    for key in keys:
        value, usual = getattr(runtime, key), getattr(default, key)
        if value != usual:
            rule = (
                "belongs to zero 0 to 2" if key != "average_in_collective" else "belongs to in-place buffers"
            )
            yield Violation(f"runtime.{key}", value, rule, "leave it out")


def shard_group(run: RunSpec) -> Iterator[Violation]:
    """A shard group is a whole part of the DP·CP group, made of whole rows of it."""
    p, size = run.parallelism, run.parallelism.shard_size
    if not size or run.gpus % replica_size(run):
        return
    whole = run.dp * p.cp
    allowed = [d for d in divisors(whole) if d % p.cp == 0 or p.cp % d == 0]
    if p.zero == 0:
        yield Violation("parallelism.shard_size", size, "needs zero 1, 2 or 3: nothing is sharded", "0")
    elif size not in allowed:
        rule = f"must divide dp·cp = {whole}, and be a multiple or divisor of cp = {p.cp}"
        yield Violation("parallelism.shard_size", size, rule, near_choices(allowed, size))
    elif run.model.is_moe and size < whole:
        rule = "sharding within a group is modelled for models without experts only"
        yield Violation("parallelism.shard_size", size, rule, "0")


def state_offload(run: RunSpec) -> Iterator[Violation]:
    """States leave the device in shards, for a host that has room and speed for them."""
    p, host = run.parallelism, run.cluster.host
    optimizer, parameters = p.offload.optimizer, p.offload.parameters
    if optimizer != "device" and p.zero == 0:
        yield Violation("parallelism.offload.optimizer", optimizer, "needs zero 1, 2 or 3", "zero: 2")
    if optimizer != "device" and not run.training.optimizer.startswith(("adam", "sgd")):
        rule = f"{run.training.optimizer} on the host is not modelled"
        yield Violation("parallelism.offload.optimizer", optimizer, rule, "device")
    if optimizer != "device" and not host.memory_bandwidth:
        rule = f"the host of {run.cluster.name} states no memory_bandwidth"
        yield Violation("parallelism.offload.optimizer", optimizer, rule, "device")
    if parameters != "device" and (p.zero != FULLY_SHARDED or optimizer == "device"):
        rule = "needs zero 3 and an optimizer on the host too"
        yield Violation("parallelism.offload.parameters", parameters, rule, "zero: 3 with optimizer: cpu")
    for key, home in (("optimizer", optimizer), ("parameters", parameters)):
        if home == "nvme" and not host.nvme_bandwidth:
            rule = f"the host of {run.cluster.name} states no nvme_bandwidth"
            yield Violation(f"parallelism.offload.{key}", home, rule, "cpu")


SHARDING_RULES: tuple[Callable[[RunSpec], Iterator[Violation]], ...] = (
    fully_sharded_options,
    kept_for_the_step,
    bucketed_options,
    shard_group,
    state_offload,
)
