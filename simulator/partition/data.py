"""Data parallelism and ZeRO-1: gradient buckets, their collectives, and the optimizer's share.

Follows Megatron-LM's distributed data parallel: the first chunk of pipeline stage 0 is cut into buckets,
every other chunk is one bucket. ZeRO-1 (the distributed optimizer) reduce-scatters gradients and all-gathers
parameters; without it gradients are all-reduced and every replica steps the whole optimizer (Rajbhandari
2020). Routed experts have fewer replicas than the rest (``edp`` of Megatron's parallel folding), hence
buckets and collectives of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulator.graph.operators import DTYPE_BYTES, Axis, Collective, CollectiveKind, MemoryBound, Operator

FULLY_SHARDED = 3  # the ZeRO stage that shards parameters too
PARAMETER_BYTES = 2.0
NARROW_PARAMETER_BYTES = 1.0  # fp8, where weights have no copy in 16 bits
# Adam in mixed precision, bytes per parameter: reads main gradient, master weight and two moments (16),
# writes master, moments (12) and the model's copy (2); the copy is a kernel of its own that reads the master
# weight again (4).
ADAM_READ, ADAM_WRITE, COPY_READ = 16.0, 12.0, 4.0
SGD_READ, SGD_WRITE = 8.0, 4.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """When fully sharded parameters are whole, and when their gradients are reduced.

    ``keep``: gathered parameters stay until the unit's forward is done (``forward``: gathered again for
    backward), until its backward is done (``backward``), or for the whole step (``step``). ``reduce``: after
    every ``microbatch``, or once a ``step``. ``prefetch``: how many units gathers run ahead of compute.
    """

    keep: Literal["forward", "backward", "step"] = "forward"
    reduce: Literal["microbatch", "step"] = "microbatch"
    prefetch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """The groups over which gradients are reduced, and what they shard.

    ``replicas`` counts DP × CP; ``expert_replicas`` the copies of a routed expert, 0 where there are none.
    """

    replicas: int
    zero: int
    grad_dtype: str
    bucket_elements: float
    optimizer: str
    loss_scaling: bool  # fp16: gradients are unscaled and checked for infinities
    average_in_collective: bool = True
    expert_replicas: int = 0
    sharding: Sharding = Sharding()

    @property
    def grad_bytes(self) -> float:
        """Bytes of one main gradient."""
        return DTYPE_BYTES[self.grad_dtype]

    def copies(self, axis: Axis) -> int:
        """How many ranks hold the same parameters: those of a routed expert on ``edp``, else the others."""
        return max(1, self.expert_replicas) if axis == "edp" else self.replicas

    def shard(self, parameters: float, expert_parameters: float = 0.0) -> float:
        """Of a rank's parameters, those whose optimizer state it holds. ``parameters`` includes experts."""
        if self.zero == 0:
            return parameters
        dense = parameters - expert_parameters
        return dense / self.copies("dp_cp") + expert_parameters / self.copies("edp")

    def buckets(
        self, layer_parameters: tuple[float, ...], *, cut: bool, axis: Axis = "dp_cp"
    ) -> tuple[Bucket, ...]:
        """Buckets of a chunk in the order in which backward fills them (last layer first).

        Fully sharded, every layer is one: the unit of gathers.
        """
        limit = max(self.bucket_elements, 1e6 * self.copies(axis)) if cut else float("inf")
        if self.zero == FULLY_SHARDED:
            limit = 1.0
        buckets: list[Bucket] = []
        held, stop = 0.0, len(layer_parameters)
        for index in reversed(range(len(layer_parameters))):
            held += layer_parameters[index]
            if held and (held >= limit or index == 0):
                buckets.append(Bucket(parameters=held, first_layer=index, stop_layer=stop, axis=axis))
                held, stop = 0.0, index
        return tuple(buckets)

    def reduce_gradients(self, bucket: Bucket, name: str) -> Collective | None:
        """The reduction of one bucket, ``None`` without replicas."""
        if self.copies(bucket.axis) == 1:
            return None
        kind: CollectiveKind = "reduce_scatter" if self.zero >= 1 else "all_reduce"
        size = bucket.parameters * self.grad_bytes
        return Collective(name=f"{name}.grad_{kind}", kind=kind, axis=bucket.axis, size_bytes=size)

    def gather_parameters(self, bucket: Bucket, name: str) -> Collective | None:
        """The gather of one bucket's updated parameters, ``None`` where every replica has updated them
        itself.
        """
        if self.copies(bucket.axis) == 1 or self.zero == 0:
            return None
        return Collective(
            name=f"{name}.param_all_gather",
            kind="all_gather",
            axis=bucket.axis,
            size_bytes=bucket.parameters * PARAMETER_BYTES
            - bucket.narrow_parameters * (PARAMETER_BYTES - NARROW_PARAMETER_BYTES),
        )

    def before_reduction(self, parameters: float) -> tuple[Operator, ...]:
        """Scaling by 1/replicas, on the whole buffer, unless the collective does it."""
        if self.replicas == 1 or self.average_in_collective:
            return ()
        size = parameters * self.grad_bytes
        return (MemoryBound(name="scale_gradients", kind="optimizer", read_bytes=size, write_bytes=size),)

    def before_norm(self, shard: float) -> tuple[Operator, ...]:
        """From the reduced gradients to this rank's share of the norm (and fp16's unscaling)."""
        size = shard * self.grad_bytes
        norm = MemoryBound(name="grad_norm", kind="optimizer", read_bytes=size, write_bytes=0.0)
        if not self.loss_scaling:
            return (norm,)
        return (MemoryBound(name="unscale", kind="optimizer", read_bytes=size, write_bytes=size), norm)

    def after_norm(self, shard: float, parameters: float) -> tuple[Operator, ...]:
        """The optimizer on this rank's shard, the copy to the model's precision, and clearing the main
        gradients.
        """
        adam = self.optimizer.startswith("adam")
        read, write = (ADAM_READ, ADAM_WRITE) if adam else (SGD_READ, SGD_WRITE)
        return (
            MemoryBound(
                name="optimizer", kind="optimizer", read_bytes=shard * read, write_bytes=shard * write
            ),
            MemoryBound(
                name="copy_parameters",
                kind="optimizer",
                read_bytes=shard * COPY_READ,
                write_bytes=shard * PARAMETER_BYTES,
            ),
            MemoryBound(
                name="zero_gradients",
                kind="optimizer",
                read_bytes=0.0,
                write_bytes=parameters * self.grad_bytes,
            ),
        )
