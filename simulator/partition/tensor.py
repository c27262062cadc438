"""Tensor and sequence parallelism, Megatron's 1-D scheme (Shoeybi 2019; Korthikanti 2022, section 4.2).

:func:`shard` gives one rank's share of a node; :func:`forward_steps` and :func:`backward_steps` put the
collectives around it. With sequence parallelism the residual stream is split over tokens: gathered before a
column-parallel GEMM, scattered after a row-parallel one. Without it a row-parallel GEMM ends in an
all-reduce.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.graph.layer import Node, Region, Tensor
from simulator.graph.operators import (
    Attention,
    Collective,
    CollectiveKind,
    Gemm,
    KernelOp,
    MemoryBound,
    Operator,
)
from simulator.partition.grid import Grid
from simulator.partition.quantization import forward_input, gathered_gradient, output_gradient, saved_input
from simulator.partition.segment import SegmentBuilder
from simulator.partition.tp_overlap import pipelined_reduction, ring_exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorParallel:
    """The size of the TP group, whether it splits the residual stream too, and what hides its collectives."""

    size: int
    sequence: bool
    overlap: bool = False  # products in chunks beside their own collectives, where that is quicker
    grid: Grid | None = None  # blocks on a grid of ranks in place of rows and columns
    overlap_dgrad: bool = True  # the reduction of an input gradient runs beside the weight gradient
    batch_first: bool = False  # tokens are not the outermost dimension: see ``_reordered``

    @property
    def splits_tokens(self) -> bool:
        """Whether every rank has tokens of its own in the residual stream."""
        return self.sequence or self.grid is not None

    def share(self, region: Region) -> int:
        """Into how many parts the work of a region is divided."""
        if self.grid is not None:
            return self.size
        if region is Region.SEQUENCE:
            return self.size if self.sequence else 1
        if region is Region.EMBEDDING:
            return 1  # every rank looks up every token; rows it does not hold are masked to zero
        return self.size


def shard(node: Node, tp: TensorParallel) -> Node:
    """One rank's share of a node: its operators, parameters and saved tensors."""
    if node.groups and node.groups <= tp.size:
        return replace(node, forward=_nothing(node.forward), input_gradient=())
    if tp.size == 1:
        return node
    divided = 1 if node.region is Region.SEQUENCE else tp.size
    return replace(
        node,
        forward=_shard_op(node.forward, node.region, tp),
        input_gradient=tuple(_shard_op(op, node.region, tp) for op in node.input_gradient),
        weight_gradient=tuple(_shard_op(op, node.region, tp) for op in node.weight_gradient),
        parameters=node.parameters / divided,
        saves=tuple(shard_tensor(tensor, tp) for tensor in node.saves),
        enters=node.enters / tp.share(node.region),
        leaves=node.leaves / tp.share(node.region),
        transients=(
            tuple(size / tp.share(node.region) for size in node.transients[0]),
            tuple(size / tp.share(node.region) for size in node.transients[1]),
        ),
    )


def shard_tensor(tensor: Tensor, tp: TensorParallel) -> Tensor:
    """One rank's share of a kept activation."""
    return replace(tensor, bytes=tensor.bytes / tp.share(tensor.region))


def _nothing(op: KernelOp) -> KernelOp:
    assert isinstance(op, MemoryBound)
    return replace(op, read_bytes=0.0, write_bytes=0.0, kernels=0)


def _shard_op(op: KernelOp, region: Region, tp: TensorParallel) -> KernelOp:
    t = tp.size
    if isinstance(op, Gemm):
        if region is Region.SEQUENCE:
            return _shard_tokens(op, tp.share(region))
        return _shard_gemm(op, region, t)
    if isinstance(op, Attention):
        return replace(op, heads=op.heads // t, kv_heads=max(1, op.kv_heads // t))
    if isinstance(op, MemoryBound):
        share = tp.share(region)
        return replace(op, read_bytes=op.read_bytes / share, write_bytes=op.write_bytes / share)
    raise TypeError(f"tensor parallelism does not know {type(op).__name__} {op.name!r}")


def _shard_tokens(op: Gemm, parts: int) -> Gemm:
    """A product with whole weights, of which every rank does its own tokens."""
    return replace(op, k=op.k // parts) if op.role == "wgrad" else replace(op, m=op.m // parts)


def _shard_gemm(op: Gemm, region: Region, t: int) -> Gemm:
    """Divides the split feature: n forward, k in dgrad, m in wgrad (column); k, n and n (row)."""
    if region is Region.FEATURE:
        return replace(op, batch=op.batch // t)
    column = region is Region.COLUMN
    if op.role == "forward":
        return replace(op, n=op.n // t) if column else replace(op, k=op.k // t)
    if op.role == "dgrad":
        return replace(op, k=op.k // t) if column else replace(op, n=op.n // t)
    return replace(op, m=op.m // t) if column else replace(op, n=op.n // t)


def _collective(kind: CollectiveKind, size: float, name: str) -> Collective:
    return Collective(name=f"{name}.{kind}", kind=kind, axis="tp", size_bytes=size)


def forward_steps(node: Node, tp: TensorParallel, out: SegmentBuilder) -> None:
    """Appends a sharded node's forward work, collectives included; all of them are exposed.

    With ``tp.overlap`` a product may run in chunks beside its own collective instead.
    """
    name = node.forward.name
    gathered = _gathers(node, tp, Region.COLUMN)
    operand = forward_input(node, tp.size if gathered else 1)
    _run(operand.before, out)
    if gathered and not operand.after:
        gather = _collective("all_gather", node.boundary_bytes * operand.share, name)
        _gathered_product(gather, node.forward, tp, out)
    elif gathered:
        _gather(_collective("all_gather", node.boundary_bytes * operand.share, name), tp, out)
        _run((*operand.after, node.forward), out)
    elif tp.size > 1 and node.region in (Region.ROW, Region.EMBEDDING):
        _run(operand.after, out)
        _reduced_product(node, tp, out)
    else:
        _run((*operand.after, node.forward), out)
    if tp.size > 1:
        for size in node.reductions:
            out.exposed(_collective("all_reduce", size, name))


def backward_steps(node: Node, tp: TensorParallel, out: SegmentBuilder) -> None:
    """Appends a sharded node's gradients.

    Column-parallel: the gather of the saved input hides behind the input gradient, the reduction of the input
    gradient behind the weight gradient. Row-parallel: the gather of the output gradient is exposed, or
    overlapped with the input gradient in chunks (``tp.overlap``).
    """
    if not node.input_gradient and not node.weight_gradient:
        return  # a frozen embedding
    name = node.forward.name
    gathered = _gathers(node, tp, Region.ROW) or _gathers(node, tp, Region.EMBEDDING)
    gradient = output_gradient(node, tp.size if gathered else 1)
    _run(gradient.before, out)
    inputs = node.input_gradient
    if gathered:
        gather = _collective("all_gather", node.boundary_bytes * gradient.share, f"{name}.grad")
        if inputs and not gradient.after:
            _gathered_product(gather, inputs[0], tp, out)
            inputs = inputs[1:]
        else:
            _gather(gather, tp, out)
    regathered = _gathers(node, tp, Region.COLUMN) and bool(node.weight_gradient)
    operand = saved_input(node, tp.size if regathered else 1)
    kept: tuple[int, ...] = ()
    if regathered:
        _run(operand.before, out)
        kept = _regather(
            _collective("all_gather", node.boundary_bytes * operand.share, f"{name}.input"), tp, out
        )
    kind: CollectiveKind = "reduce_scatter" if tp.sequence else "all_reduce"
    reduction = _collective(kind, node.boundary_bytes, f"{name}.dgrad")
    reduces = tp.size > 1 and node.region is Region.COLUMN
    _run((*gradient.after, *(_reordered(reduction, tp) if reduces else ())), out)
    start, ready = len(out.steps), out.ready
    for op in inputs:
        out.compute(op, beside=kept)
    reduced: tuple[int, ...] = ()
    if reduces:
        reduced = (out.communicate(reduction),)
        if not tp.overlap_dgrad:
            kept = (*kept, *reduced)
            _in_chunks(inputs, reduction, tp, out, start, ready)
    again = () if regathered else operand.before
    late = (*again, *operand.after, *gathered_gradient(node, tp.size if gathered else 1))
    for weight_op in (*late, *node.weight_gradient):
        if node.input_gradient:
            out.beside(weight_op, waits=kept, beside=reduced if tp.overlap_dgrad else ())
        else:
            out.compute(weight_op, weight_gradient=True)
    out.pending = (*out.pending, *reduced)


def _gathered_product(gather: Collective, op: KernelOp, tp: TensorParallel, out: SegmentBuilder) -> None:
    """A gather and the product that needs its result."""
    _run(_reordered(gather, tp), out)
    start, ready = len(out.steps), out.ready
    out.exposed(gather)
    out.compute(op)
    if tp.overlap and isinstance(op, Gemm):
        chunked = ring_exchange(gather, op, tp.size, start, ready)
        if chunked is not None:
            out.otherwise(start, chunked)


def _gather(gather: Collective, tp: TensorParallel, out: SegmentBuilder) -> None:
    """A gather that the next work needs, in the order it needs."""
    _run((gather, *_reordered(gather, tp)), out)


def _regather(gather: Collective, tp: TensorParallel, out: SegmentBuilder) -> tuple[int, ...]:
    """A saved input whole again, for the weight gradient: what that waits for.

    Megatron-LM gathers it beside the input gradient. DTensor's layers hold it gathered; to save it split is
    to compute it again before the layer's gradients, the gather with it.
    """
    if tp.batch_first:
        _gather(gather, tp, out)
        return ()
    return (out.communicate(gather),)


def _reordered(op: Collective, tp: TensorParallel) -> tuple[MemoryBound, ...]:
    """Collectives join and cut tensors along their outermost dimension. Where that is the batch, a copy of
    the whole puts gathered tokens into order, or those to be scattered (``all_gather_tensor`` and
    ``reduce_scatter_tensor`` of ``torch.distributed._functional_collectives``).

    Products in chunks beside their collectives pay as much: operands are flattened with the tokens outermost,
    and partial results are stacked before they are summed (estimate: the gain that was published leaves no
    room for less). The copy stands before the product or the collective, whichever is first.
    """
    if not tp.batch_first or op.kind == "all_reduce":
        return ()
    size = op.size_bytes
    return (MemoryBound(name=f"{op.name}.reorder", kind="copy", read_bytes=size, write_bytes=size),)


def _reduced_product(node: Node, tp: TensorParallel, out: SegmentBuilder) -> None:
    """A product whose partial results the group sums."""
    kind: CollectiveKind = "reduce_scatter" if tp.sequence else "all_reduce"
    reduction = _collective(kind, node.boundary_bytes, node.forward.name)
    _run(_reordered(reduction, tp), out)
    start, ready = len(out.steps), out.ready
    out.compute(node.forward)
    out.exposed(reduction)
    _in_chunks((node.forward,), reduction, tp, out, start, ready)


def _in_chunks(
    ops: tuple[KernelOp, ...],
    reduction: Collective,
    tp: TensorParallel,
    out: SegmentBuilder,
    start: int,
    ready: tuple[int, ...],
) -> None:
    """Another way to do a product and its reduction, appended since ``start``."""
    if not tp.overlap or len(ops) != 1 or not isinstance(ops[0], Gemm):
        return
    chunked = pipelined_reduction(ops[0], reduction, start, ready)
    if chunked is not None:
        out.otherwise(start, chunked)


def _gathers(node: Node, tp: TensorParallel, region: Region) -> bool:
    """Whether a node of this region has its token-split operand gathered."""
    return tp.size > 1 and tp.sequence and node.region is region


def _run(ops: tuple[Operator, ...], out: SegmentBuilder) -> None:
    """Kernels on the data path, and collectives that the next one needs."""
    for op in ops:
        if isinstance(op, Collective):
            out.exposed(op)
        else:
            out.compute(op)
