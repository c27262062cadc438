"""Data parallelism: gradient buckets, what ZeRO and FSDP shard, their collectives, and the optimizer's share.

Megatron-LM cuts the first chunk of pipeline stage 0 into buckets and makes every other chunk one bucket;
PyTorch's DDP and DeepSpeed cut everything. ZeRO-1 (the distributed optimizer) reduce-scatters gradients and
all-gathers parameters; without it gradients are all-reduced and every replica steps the whole optimizer
(Rajbhandari 2020). Where shards are kept in a smaller group, the sharded gradients are all-reduced across
the groups (HSDP, MiCS). Routed experts have fewer replicas than the rest (``edp`` of Megatron's parallel
folding), hence buckets and collectives of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Literal

from simulator.graph.operators import (
    DTYPE_BYTES,
    Axis,
    Collective,
    CollectiveKind,
    Copy,
    MemoryBound,
    Operator,
)
from simulator.partition.optimizer import PARAMETER_BYTES, Matrix, Optimizer, newton_schulz
from simulator.partition.state_offload import ON_DEVICE, StateOffload

FULLY_SHARDED = 3  # the ZeRO stage that shards parameters too
MASTER_BYTES = 4.0
NARROW_PARAMETER_BYTES = 1.0  # fp8, where weights have no copy in 16 bits
FIRST_BUCKET_ELEMENTS = 2.0**20 / 4.0  # PyTorch's DDP starts with a bucket of 1 MiB of fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Parameters whose gradients travel together: those of a chunk's layers [first_layer, stop_layer).

    ``axis``: the group that holds copies of them, ``edp`` for routed experts.
    """

    parameters: float
    first_layer: int
    stop_layer: int
    axis: Axis = "dp_cp"
    narrow_parameters: float = 0.0  # of them, those gathered in fp8
    messages: int = 1  # collectives it takes, where its layers hold several of the software's buckets
    parameter_bytes: float = PARAMETER_BYTES

    @property
    def gathered_bytes(self) -> float:
        """The whole parameters as gathered."""
        narrow = self.narrow_parameters * (self.parameter_bytes - NARROW_PARAMETER_BYTES)
        return self.parameters * self.parameter_bytes - narrow


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """When fully sharded parameters are whole, and when their gradients are reduced.

    ``keep``: gathered parameters stay until the unit's forward is done (``forward``: gathered again for
    backward), until its backward is done (``backward``), or for the whole step (``step``). ``reduce``: after
    every ``microbatch``, or once a ``step``. ``prefetch``: how many units gathers run ahead of compute.
    ``buffers``: what collectives read and write: buffers of their own that tensors are ``copied`` from and to
    (FSDP2), one ``flat`` tensor per unit (FSDP1), or the tensors ``in-place`` (Megatron-FSDP).
    """

    keep: Literal["forward", "backward", "step"] = "forward"
    reduce: Literal["microbatch", "step"] = "microbatch"
    prefetch: int = 1
    buffers: Literal["copied", "flat", "in-place"] = "in-place"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """The groups over which gradients are reduced, and what they shard.

    ``replicas`` counts DP × CP; ``expert_replicas`` the copies of a routed expert, 0 where there are none;
    ``shard_ranks`` those over which ZeRO shards, 0: all copies. ``model_copies``: times that each replica
    holds the model, on other pipeline devices (DualPipe: 2). ``cut_all``: every chunk has buckets, not only
    the first.
    """

    replicas: int
    zero: int
    grad_dtype: str
    bucket_elements: float
    optimizer: Optimizer
    loss_scaling: bool  # fp16: gradients are unscaled and checked for infinities
    average_in_collective: bool = True
    expert_replicas: int = 0
    model_copies: int = 1
    shard_ranks: int = 0
    cut_all: bool = False
    sharding: Sharding = Sharding()
    offload: StateOffload = ON_DEVICE

    @property
    def grad_bytes(self) -> float:
        """Bytes of one main gradient."""
        return DTYPE_BYTES[self.grad_dtype]

    @property
    def parameter_bytes(self) -> float:
        """Bytes of one weight that layers compute with."""
        return self.optimizer.parameter_bytes

    @property
    def fully_sharded(self) -> bool:
        """Whether parameters are sharded too."""
        return self.zero == FULLY_SHARDED

    @property
    def fresh_gradient_bytes(self) -> float:
        """Of a weight gradient that is reduced after its microbatch; 0 where microbatches add up."""
        if not self.fully_sharded or self.sharding.reduce == "step":
            return 0.0
        return self.grad_bytes if self.sharding.buffers == "in-place" else self.parameter_bytes

    @property
    def frees_whole_gradients(self) -> bool:
        """Whether gradients that wait for one reduction a step exist only between a unit's backward passes.

        So in PyTorch's FSDP, from the first to the last one; Megatron-FSDP's buffers stay.
        """
        once = self.fully_sharded and self.sharding.reduce == "step"
        return once and self.sharding.buffers != "in-place" and self.shards("dp_cp") > 1

    @property
    def regathers(self) -> bool:
        """Whether parameters, and what is derived from them, are made whole anew in every microbatch."""
        return self.fully_sharded and self.sharding.keep != "step" and self.shards("dp_cp") > 1

    def copies(self, axis: Axis) -> int:
        """How many ranks hold the same parameters: those of a routed expert on ``edp``, else the others."""
        return self.model_copies * (max(1, self.expert_replicas) if axis == "edp" else self.replicas)

    def shards(self, axis: Axis) -> int:
        """Into how many parts ZeRO cuts the parameters of an axis."""
        if self.zero == 0:
            return 1
        return self.shard_ranks or self.copies(axis) if axis == "dp_cp" else self.copies(axis)

    def shard(self, parameters: float, expert_parameters: float = 0.0) -> float:
        """Of a rank's parameters, those whose optimizer state it holds. ``parameters`` includes experts."""
        dense = parameters - expert_parameters
        return dense / self.shards("dp_cp") + expert_parameters / self.shards("edp")

    def buckets(
        self, layer_parameters: tuple[float, ...], *, cut: bool, axis: Axis = "dp_cp"
    ) -> tuple[Bucket, ...]:
        """Buckets of a chunk in the order in which backward fills them (last layer first).

        A layer is never cut; where it fills several buckets, they travel after it as so many messages. Fully
        sharded, every layer is one bucket: the unit of gathers.
        """
        least = 0.0 if self.cut_all else 1e6 * self.copies(axis)
        limit = max(self.bucket_elements, least) if cut or self.cut_all else float("inf")
        size = limit if self.cut_all else float("inf")
        if self.fully_sharded:
            limit, size = 1.0, float("inf")
        first = min(limit, FIRST_BUCKET_ELEMENTS) if self.cut_all else limit
        return _buckets(layer_parameters, limit, first, size, axis, self.parameter_bytes)

    def reduce_gradients(self, bucket: Bucket, name: str) -> tuple[Collective, ...]:
        """The reduction of one bucket, nothing without replicas.

        With shards inside a group the sharded result is then summed across groups.
        """
        copies, shards = self.copies(bucket.axis), self.shards(bucket.axis)
        size = bucket.parameters * self.grad_bytes
        if copies == 1:
            return ()
        if shards == 1:
            return self._messages(bucket, name, "all_reduce", bucket.axis, size)
        if shards == copies:
            return self._messages(bucket, name, "reduce_scatter", bucket.axis, size)
        inside = self._messages(bucket, name, "reduce_scatter", "shard", size)
        across = self._messages(bucket, name, "all_reduce", "replicate", size / shards)
        return inside + across

    def _messages(
        self, bucket: Bucket, name: str, kind: CollectiveKind, axis: Axis, size: float
    ) -> tuple[Collective, ...]:
        part = size / bucket.messages
        return (
            Collective(name=f"{name}.grad_{kind}", kind=kind, axis=axis, size_bytes=part),
        ) * bucket.messages

    def gather_parameters(self, bucket: Bucket, name: str) -> Collective | None:
        """The gather of one bucket's updated parameters, ``None`` where every replica has updated them
        itself.
        """
        shards = self.shards(bucket.axis)
        if shards == 1:
            return None
        axis = bucket.axis if shards == self.copies(bucket.axis) else "shard"
        size = bucket.gathered_bytes
        return Collective(name=f"{name}.param_all_gather", kind="all_gather", axis=axis, size_bytes=size)

    def before_gather(self, bucket: Bucket) -> tuple[Operator, ...]:
        """PyTorch's FSDP keeps no shard in the model's precision: it casts the fp32 shard for each gather."""
        in_place = self.sharding.buffers == "in-place" or self.offload.parameters != "device"
        flat = self.sharding.buffers == "flat" and self.parameter_bytes == MASTER_BYTES  # nothing to cast
        if not self.fully_sharded or in_place or flat:
            return ()
        shards = self.shards(bucket.axis)
        read, write = bucket.parameters * MASTER_BYTES / shards, bucket.gathered_bytes / shards
        return (MemoryBound(name="cast_shard", kind="cast", read_bytes=read, write_bytes=write),)

    def after_gather(self, bucket: Bucket) -> tuple[Operator, ...]:
        """FSDP2 copies each parameter out of the gathered buffer (``split_with_sizes_copy``)."""
        if not self.fully_sharded or self.sharding.buffers != "copied":
            return ()
        size = bucket.gathered_bytes
        return (MemoryBound(name="copy_out", kind="copy", read_bytes=size, write_bytes=size),)

    def fetch_shard(self, bucket: Bucket) -> tuple[Copy, ...]:
        """A unit's shard from where it lives, before its gather."""
        return self.offload.fetch(bucket.gathered_bytes / self.shards(bucket.axis))

    def leave_shard(self, bucket: Bucket) -> tuple[Copy, ...]:
        """A bucket's reduced gradients on their way to an optimizer on the host."""
        return self.offload.leave(bucket.parameters / self.shards(bucket.axis), self.grad_bytes)

    def update_on_host(self, bucket: Bucket) -> tuple[Operator, ...]:
        """The optimizer's step of a bucket, where it runs on the host."""
        shard = bucket.parameters / self.shards(bucket.axis)
        return self.offload.update(shard, self.grad_bytes, self.optimizer)

    def before_reduction(self, bucket: Bucket) -> tuple[Operator, ...]:
        """What gradients go through before their reduction, on the compute stream.

        FSDP2 copies them into one buffer in the reduction's format (``chunk_cat``), FSDP1's autograd joins
        those of a unit's parameters. Bucketed, the whole buffer is scaled by 1/replicas, unless the
        collective does it.
        """
        if self.copies(bucket.axis) == 1:
            return ()
        size, own = bucket.parameters * self.grad_bytes, bucket.parameters * self.parameter_bytes
        if self.fully_sharded and self.sharding.buffers != "in-place":
            write = size if self.sharding.buffers == "copied" else own
            return (MemoryBound(name="join_gradients", kind="copy", read_bytes=own, write_bytes=write),)
        if self.average_in_collective:
            return ()
        return (MemoryBound(name="scale_gradients", kind="optimizer", read_bytes=size, write_bytes=size),)

    def beside_reduction(self, bucket: Bucket) -> tuple[Operator, ...]:
        """What FSDP1 does on a stream of its own before a reduction: it casts and divides the gradient.

        ``FullyShardedDataParallel`` divides by about the square root of the replicas before and after.
        """
        if not self.fully_sharded or self.sharding.buffers != "flat" or self.copies(bucket.axis) == 1:
            return ()
        size, own = bucket.parameters * self.grad_bytes, bucket.parameters * self.parameter_bytes
        cast = MemoryBound(name="cast_gradients", kind="cast", read_bytes=own, write_bytes=size)
        divide = MemoryBound(name="divide_gradients", kind="cast", read_bytes=size, write_bytes=size)
        return (divide,) if self.grad_bytes == self.parameter_bytes else (cast, divide)

    def before_norm(self, shard: float) -> tuple[Operator, ...]:
        """From the reduced gradients to this rank's share of the norm (and fp16's unscaling)."""
        size = shard * self.grad_bytes
        norm = MemoryBound(name="grad_norm", kind="optimizer", read_bytes=size, write_bytes=0.0)
        if not self.loss_scaling:
            return (norm,)
        return (MemoryBound(name="unscale", kind="optimizer", read_bytes=size, write_bytes=size), norm)

    def whole_matrices(self, matrices: tuple[Matrix, ...], axis: Axis) -> tuple[Operator, ...]:
        """What Muon does before its step: momenta are gathered whole, in bf16, and orthogonalised.

        Each rank does its part of the matrices (Liu 2025, algorithm 1 of "Distributed Muon").
        """
        if not self.optimizer.takes_matrices or not matrices:
            return ()
        size = sum(matrix.elements for matrix in matrices) * PARAMETER_BYTES
        gather = Collective(name="momentum.all_gather", kind="all_gather", axis=axis, size_bytes=size)
        steps = newton_schulz(matrices, self.copies(axis))
        return steps if self.shards(axis) == 1 else (gather, *steps)

    def after_norm(self, shard: float, parameters: float) -> tuple[Operator, ...]:
        """The optimizer on this rank's shard, the copy to the model's precision, and clearing the main
        gradients.
        """
        on_device = self.offload.optimizer == "device"
        if self.fully_sharded and self.sharding.buffers != "in-place":
            if not on_device:
                return ()
            # weights are cast when gathered; gradients are new tensors in every step
            return self.optimizer.step(shard, self.grad_bytes, copy=False)
        kept = shard if self.zero >= 2 else parameters
        zero = MemoryBound(
            name="zero_gradients", kind="optimizer", read_bytes=0.0, write_bytes=kept * self.grad_bytes
        )
        return (*self.optimizer.step(shard, self.grad_bytes), zero) if on_device else (zero,)


@lru_cache(maxsize=4096)  # similar runs have them in common
def _buckets(
    layer_parameters: tuple[float, ...], limit: float, first: float, size: float, axis: Axis, width: float
) -> tuple[Bucket, ...]:
    """A bucket is complete once it holds ``limit`` elements, the first one with ``first``."""
    buckets: list[Bucket] = []
    held, stop = 0.0, len(layer_parameters)
    for index in reversed(range(len(layer_parameters))):
        held += layer_parameters[index]
        if held and (held >= (limit if buckets else first) or index == 0):
            buckets.append(
                Bucket(
                    parameters=held,
                    first_layer=index,
                    stop_layer=stop,
                    axis=axis,
                    messages=max(1, ceil(held / size)),
                    parameter_bytes=width,
                )
            )
            held, stop = 0.0, index
    return tuple(buckets)
