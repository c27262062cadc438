"""Expert parallelism: which rank runs which experts, and how rows travel to them and back.

EP and expert-TP fold into the ranks of a pipeline stage (Megatron-LM's parallel folding, arXiv 2504.14960):
each rank routes its own tokens, `T/t` with sequence parallelism, to `E/ep` experts per rank. All ranks of an
EP group wait for the most loaded one, at the combine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.graph.layer import Node, Region, Tensor
from simulator.graph.operators import (
    Awaited,
    Collective,
    Copy,
    GroupedGemm,
    KernelOp,
    MemoryBound,
)
from simulator.partition.channels import ChannelNode, channel_backward, channel_forward
from simulator.partition.context import SharedAttention, shared_backward, shared_forward
from simulator.partition.expert_layout import ExpertParallel
from simulator.partition.expert_traffic import announcement, combine, dispatch, probabilities, row_count
from simulator.partition.grid import GridNode, grid_backward, grid_forward
from simulator.partition.scan import ScanNode, scan_backward, scan_forward
from simulator.partition.segment import SegmentBuilder
from simulator.partition.tensor import TensorParallel, backward_steps, forward_steps, shard_tensor

EXPERT_REGIONS = frozenset(
    {
        Region.DISPATCH,
        Region.ARRIVAL,
        Region.EXPERT_COLUMN,
        Region.EXPERT_FEATURE,
        Region.EXPERT_ROW,
        Region.DEPARTURE,
        Region.COMBINE,
    }
)
OFFSET = Copy(name="activation_offset", kind="h2d", size_bytes=2.0)  # a number in 16 bits
ON_EXPERT_RANKS = EXPERT_REGIONS - {Region.DISPATCH, Region.COMBINE}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedNode(Node):
    """One rank's share of a node of the routed experts.

    ``announced`` comes before its forward work, ``sent`` after it, ``returned`` after its input gradient; the
    next work needs them. ``awaited`` is the same node on the fullest rank, where that has more to do.
    ``count`` is what the host waits for before it launches the forward work, ``offset`` what it sends then,
    once the work before is done.
    """

    announced: tuple[Collective, ...] = ()

    sent: tuple[Collective, ...] = ()
    returned: tuple[Collective, ...] = ()
    awaited: Node | None = None
    count: Copy | None = None
    offset: Copy | None = None


def share_node(node: Node, tp: TensorParallel, ep: ExpertParallel) -> RoutedNode:
    """One rank's share of a routed experts' node, with its communication."""
    mean = _share(node, tp, ep, ep.load.mean)
    uneven = ep.load.peak > ep.load.mean and node.region in ON_EXPERT_RANKS
    fields = {name: getattr(mean, name) for name in Node.__dataclass_fields__}
    fields["saves"] = tuple(_share_tensor(tensor, tp, ep) for tensor in node.saves)
    there, back, scores = dispatch(node, tp, ep), combine(node, tp, ep), probabilities(node, tp, ep)
    return RoutedNode(
        **fields,
        announced=announcement(node, tp, ep) if node.region is Region.DISPATCH else (),
        sent={Region.DISPATCH: (*scores, *there), Region.DEPARTURE: back}.get(node.region, ()),
        returned={Region.ARRIVAL: (*scores, *back), Region.COMBINE: there}.get(node.region, ()),
        awaited=_share(node, tp, ep, ep.load.peak) if uneven else None,
        count=row_count(ep) if node.region is Region.DISPATCH and ep.synchronises else None,
        offset=OFFSET if node.host_waits and not ep.one_graph else None,
    )


def run_forward(node: Node, tp: TensorParallel, out: SegmentBuilder) -> None:
    """Appends any sharded node's forward work."""
    arrived = out.pending
    if node.beside:
        out.pending = ()
    if isinstance(node, RoutedNode):
        _exchange(node.announced, out)
        for copy in (node.count, node.offset):
            if copy is not None:
                out.synchronise(copy)
    if isinstance(node, SharedAttention):
        shared_forward(node, out)
    elif isinstance(node, ScanNode):
        scan_forward(node, tp, out)
    elif isinstance(node, ChannelNode):
        channel_forward(node, out)
    elif isinstance(node, GridNode):
        grid_forward(node, out)
    else:
        forward_steps(node, tp, out)
    if isinstance(node, RoutedNode):
        if node.awaited is not None:
            out.await_elsewhere(Awaited(work=node.awaited.forward, axis="ep"), arrived)
        _exchange(node.sent, out)
    if node.beside:
        out.pending = (*arrived, *out.pending)


def run_backward(node: Node, tp: TensorParallel, out: SegmentBuilder) -> None:
    """Appends any sharded node's gradients."""
    arrived = out.pending
    if node.beside:
        out.pending = ()
    if isinstance(node, SharedAttention):
        shared_backward(node, out)
    elif isinstance(node, ScanNode):
        scan_backward(node, tp, out)
    elif isinstance(node, ChannelNode):
        channel_backward(node, out)
    elif isinstance(node, GridNode):
        grid_backward(node, out)
    else:
        backward_steps(node, tp, out)
    if isinstance(node, RoutedNode):
        if node.awaited is not None:
            for op in node.awaited.input_gradient:
                out.await_elsewhere(Awaited(work=op, axis="ep"), arrived)
            for op in node.awaited.weight_gradient:
                out.await_elsewhere(Awaited(work=op, axis="ep"), arrived, weight_gradient=True)
        _exchange(node.returned, out)
    if node.beside:
        out.pending = (*arrived, *out.pending)


def _exchange(collectives: tuple[Collective, ...], out: SegmentBuilder) -> None:
    for op in collectives:
        out.exposed(op)


def _rows(tp: TensorParallel, ep: ExpertParallel, load: float) -> float:
    """Rows of an expert rank over the rows that the tokens of a whole TP group make."""
    return load * ep.tensor / tp.share(Region.SEQUENCE)


def _share(node: Node, tp: TensorParallel, ep: ExpertParallel, load: float) -> Node:
    def share(op: KernelOp) -> KernelOp:
        if isinstance(op, GroupedGemm):
            return _share_product(op, node.region, tp, ep, load)
        if isinstance(op, MemoryBound):
            return _share_traffic(op, node.region, tp, ep, load)
        raise TypeError(f"expert parallelism does not know {type(op).__name__} {op.name!r}")

    return replace(
        node,
        forward=share(node.forward),
        input_gradient=tuple(share(op) for op in node.input_gradient),
        weight_gradient=tuple(share(op) for op in node.weight_gradient),
        parameters=node.parameters / ep.ranks,
    )


def _share_product(
    op: GroupedGemm, region: Region, tp: TensorParallel, ep: ExpertParallel, load: float
) -> GroupedGemm:
    """The local experts' products; expert-TP splits FC1's outputs and FC2's inputs."""
    outputs = region is Region.EXPERT_COLUMN
    splits_n = outputs is (op.role != "dgrad")
    groups = op.groups // ep.size
    return replace(
        op,
        groups=groups,
        rows=op.rows * _rows(tp, ep, load),
        n=op.n // ep.tensor if splits_n else op.n,
        k=op.k if splits_n else op.k // ep.tensor,
        apart=not ep.single_launch,
    )


def _share_traffic(
    op: MemoryBound, region: Region, tp: TensorParallel, ep: ExpertParallel, load: float
) -> MemoryBound:
    if op.kind == "accumulate":
        factor = 1.0 / ep.ranks
    elif region in (Region.DISPATCH, Region.COMBINE):
        if ep.dispatcher != "alltoall":  # the experts' ranks put rows in order, or the dispatch itself does
            return _nothing(op)
        factor = load / tp.share(Region.SEQUENCE)
    elif region in (Region.ARRIVAL, Region.DEPARTURE):
        return _share_sort(op, tp, ep, load)
    else:
        split = ep.tensor if region is not Region.EXPERT_ROW else 1
        factor = _rows(tp, ep, load) / split
    per_expert, others = divmod(op.kernels, ep.experts)
    kernels = per_expert * (ep.experts // ep.size) + others
    return replace(
        op, read_bytes=op.read_bytes * factor, write_bytes=op.write_bytes * factor, kernels=kernels
    )


def _nothing(op: MemoryBound) -> MemoryBound:
    return replace(op, read_bytes=0.0, write_bytes=0.0, kernels=0)


def _share_sort(op: MemoryBound, tp: TensorParallel, ep: ExpertParallel, load: float) -> MemoryBound:
    """Rows in the order of their experts: by a sort, or from tokens that came once for many rows."""
    factor = _rows(tp, ep, load)
    rows = op.write_bytes * factor
    if ep.dispatcher == "alltoall":
        in_order = ep.experts == ep.size or ep.ranks == 1
        return _nothing(op) if in_order else replace(op, read_bytes=rows, write_bytes=rows)
    tokens = rows * ep.distinct_ranks / ep.top_k
    return replace(op, read_bytes=tokens, write_bytes=rows)


def _share_tensor(tensor: Tensor, tp: TensorParallel, ep: ExpertParallel) -> Tensor:
    """What the fullest rank keeps: memory has to hold it."""
    if tensor.region not in ON_EXPERT_RANKS:
        return shard_tensor(tensor, tp)
    factor = _rows(tp, ep, ep.load.peak)
    return replace(
        tensor,
        bytes=tensor.bytes * factor / (ep.tensor if tensor.region is Region.EXPERT_FEATURE else 1),
    )
