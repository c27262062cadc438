"""Weights and gradients on one rank: whole, or as shards beside the units that are whole for the moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from simulator.partition.chunk import ChunkShare
from simulator.partition.data import MASTER_BYTES, DataParallel

T = TypeVar("T")


def weight_bytes(data: DataParallel, chunks: Sequence[ChunkShare]) -> float:
    """Weights in the formats that layers compute with.

    Fully sharded, ``prefetch`` + 1 consecutive units are whole at once; all of them where they stay gathered
    after their forward. PyTorch's FSDP keeps shards in fp32 only, which count as the optimizer's where
    layers compute in fewer bits.
    """
    whole = sum(chunk.weight_bytes for chunk in chunks)
    if not data.fully_sharded:
        return whole
    elsewhere = data.offload.parameters != "device"
    kept = data.sharding.buffers == "in-place" or data.optimizer.master == "none"
    resident = _shard(data, chunks) * data.parameter_bytes if kept and not elsewhere else 0.0
    if data.sharding.keep != "forward" or (data.shards("dp_cp") == 1 and not elsewhere):
        return whole if data.shards("dp_cp") == 1 else resident + whole
    gathered = (
        sum(layer.weight_bytes for layer in window)
        for chunk in chunks
        for window in _windows(chunk.layers, data.sharding.prefetch + 1)
    )
    return resident + max(gathered, default=0.0)


def gradient_bytes(data: DataParallel, chunks: Sequence[ChunkShare]) -> float:
    """Main gradients that are there for the whole step.

    ZeRO-2 keeps shards of them, one bucket that fills and one that is reduced; fully sharded, a unit is a
    bucket, filled in the format of its fresh gradients. Those that wait whole for one reduction a step come
    and go with the schedule (``whole_gradients`` of ``activations.py``).
    """
    whole = sum(chunk.parameters for chunk in chunks) * data.grad_bytes
    if data.zero < 2 or (data.shards("dp_cp") == 1 and data.offload.optimizer == "device"):
        return whole
    shard_format = (
        MASTER_BYTES if data.fully_sharded and data.sharding.buffers != "in-place" else data.grad_bytes
    )
    shard = _shard(data, chunks) * shard_format if data.offload.optimizer == "device" else 0.0
    if data.frees_whole_gradients:
        return shard
    if data.fully_sharded and data.sharding.reduce == "step":
        return shard + whole
    filling = data.fresh_gradient_bytes or data.grad_bytes
    pairs = (window for chunk in chunks for window in _windows(chunk.buckets, 2))
    under_way = (
        data.grad_bytes * window[0].parameters + filling * sum(b.parameters for b in window[1:])
        for window in pairs
    )
    return max(shard, min(whole, shard + max(under_way, default=0.0)))


def optimizer_bytes(data: DataParallel, parameters: float, expert_parameters: float) -> float:
    """State of the optimizer on the device; ``parameters`` of a rank include those of experts."""
    if data.offload.optimizer != "device":
        return 0.0
    return data.shard(parameters, expert_parameters) * data.optimizer.state_bytes


def _shard(data: DataParallel, chunks: Sequence[ChunkShare]) -> float:
    """Parameters of which this rank holds a shard, as elements of the shard."""
    parameters = sum(chunk.parameters for chunk in chunks)
    return data.shard(parameters, sum(chunk.expert_parameters for chunk in chunks))


def _windows(items: Sequence[T], length: int) -> Iterator[Sequence[T]]:
    """Every run of ``length`` neighbours; all of them where there are fewer."""
    for start in range(max(1, len(items) - length + 1)):
        yield items[start : start + length]
