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
    CollectiveKind,
    Copy,
    GroupedGemm,
    KernelOp,
    MemoryBound,
)
from simulator.partition.context import SharedAttention, shared_backward, shared_forward
from simulator.partition.expert_load import Load, router_load
from simulator.partition.segment import SegmentBuilder
from simulator.partition.tensor import TensorParallel, backward_steps, forward_steps, shard_tensor
from simulator.spec.run import RunSpec

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
ON_EXPERT_RANKS = EXPERT_REGIONS - {Region.DISPATCH, Region.COMBINE}
PROBABILITY_BYTES = 4.0
BALANCED = Load()
DISPATCHED_BYTES = {"bf16": 2.0, "fp8": 1.0 + 4.0 / 128}  # fp8 with an fp32 scale for 128 elements
COUNT_BYTES = 8.0  # rows per expert, int64
MAP_BYTES = 1.0  # whether a token goes to an expert


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertParallel:
    """How experts are divided and rows travel.

    ``dispatcher``: ``alltoall`` sends each copy of a token to its expert's rank; ``allgather`` sends every
    token everywhere; ``deepep`` and ``hybridep`` send a token once to each rank that needs it, and over the
    network once per node. ``single_launch``: one kernel runs the products of all local experts; otherwise
    each has its own launch (Transformer Engine's multi-stream products). ``synchronises``: the host must know
    how many rows come before it can launch what works on them.
    """

    size: int = 1
    tensor: int = 1
    experts: int = 1
    top_k: int = 1
    row_width: int = 1
    dispatcher: str = "alltoall"
    node_limit: int = 0
    load: Load = BALANCED
    single_launch: bool = False
    synchronises: bool = True
    dispatch_bytes: float = 2.0  # of an element on the way to its expert, with its share of the scales

    @property
    def ranks(self) -> int:
        """Ranks that share all experts of a layer."""
        return self.size * self.tensor

    @property
    def distinct_ranks(self) -> float:
        """Expected EP ranks that the copies of one token go to: each is missed by all with (1 − 1/ep)^k."""
        return self.size * (1.0 - (1.0 - 1.0 / self.size) ** self.top_k)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedNode(Node):
    """One rank's share of a node of the routed experts.

    ``announced`` comes before its forward work, ``sent`` after it, ``returned`` after its input gradient; the
    next work needs them. ``awaited`` is the same node on the fullest rank, where that has more to do.
    ``count`` is what the host waits for before it launches the forward work.
    """

    announced: tuple[Collective, ...] = ()

    sent: tuple[Collective, ...] = ()
    returned: tuple[Collective, ...] = ()
    awaited: Node | None = None
    count: Copy | None = None


def share_node(node: Node, tp: TensorParallel, ep: ExpertParallel) -> RoutedNode:
    """One rank's share of a routed experts' node, with its communication."""
    mean = _share(node, tp, ep, ep.load.mean)
    uneven = ep.load.peak > ep.load.mean and node.region in ON_EXPERT_RANKS
    fields = {name: getattr(mean, name) for name in Node.__dataclass_fields__}
    fields["saves"] = tuple(_share_tensor(tensor, tp, ep) for tensor in node.saves)
    there, back, probabilities = _dispatch(node, tp, ep), _combine(node, tp, ep), _probabilities(node, tp, ep)
    return RoutedNode(
        **fields,
        announced=_announce(node, tp, ep) if node.region is Region.DISPATCH else (),
        sent={Region.DISPATCH: (*probabilities, *there), Region.DEPARTURE: back}.get(node.region, ()),
        returned={Region.ARRIVAL: (*probabilities, *back), Region.COMBINE: there}.get(node.region, ()),
        awaited=_share(node, tp, ep, ep.load.peak) if uneven else None,
        count=_count(ep) if node.region is Region.DISPATCH and ep.synchronises else None,
    )


def run_forward(node: Node, tp: TensorParallel, out: SegmentBuilder) -> None:
    """Appends any sharded node's forward work."""
    arrived = out.pending
    if node.beside:
        out.pending = ()
    if isinstance(node, RoutedNode):
        _exchange(node.announced, out)
        if node.count is not None:
            out.synchronise(node.count)
    if isinstance(node, SharedAttention):
        shared_forward(node, out)
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
        kernels=1 if ep.single_launch else groups,
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
    kernels = op.kernels if op.kernels < ep.experts else op.kernels // ep.size  # those per expert
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
    if ep.dispatcher == "hybridep":
        return _nothing(op)
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


def _dispatch(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
    """Rows (forward) or their gradients (backward) to the experts' ranks."""
    size = node.boundary_bytes / tp.share(Region.SEQUENCE)
    if ep.dispatcher == "allgather":
        token = size / ep.top_k
        return _over_ranks("dispatch", "all_gather", token * ep.size, token * ep.ranks, ep)
    moved = size * ep.load.peak
    gathered = moved * ep.tensor
    sends = () if ep.size == 1 else (_all_to_all("dispatch", moved * ep.dispatch_bytes / 2.0, ep),)
    if ep.tensor == 1:
        return sends
    gather = Collective(name="dispatch.all_gather", kind="all_gather", axis="etp", size_bytes=gathered)
    return (*sends, gather)


def _combine(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
    """The experts' outputs (forward) or the gradients of their inputs (backward) back to where they came
    from.
    """
    size = node.boundary_bytes / tp.share(Region.SEQUENCE)
    if ep.dispatcher == "allgather":
        token = size / ep.top_k
        return _over_ranks("combine", "reduce_scatter", token * ep.size, token * ep.ranks, ep)[::-1]
    moved = size * ep.load.peak
    back = () if ep.size == 1 else (_all_to_all("combine", moved, ep),)
    if ep.tensor == 1:
        return back
    scatter = Collective(
        name="combine.reduce_scatter", kind="reduce_scatter", axis="etp", size_bytes=moved * ep.tensor
    )
    return (scatter, *back)


def _over_ranks(
    name: str, kind: CollectiveKind, over_ep: float, over_both: float, ep: ExpertParallel
) -> tuple[Collective, ...]:
    """A gather over EP, then over expert-TP (a reduction runs through them in reverse)."""
    steps = []
    if ep.size > 1:
        steps.append(Collective(name=f"{name}.{kind}", kind=kind, axis="ep", size_bytes=over_ep))
    if ep.tensor > 1:
        steps.append(Collective(name=f"{name}.{kind}", kind=kind, axis="etp", size_bytes=over_both))
    return tuple(steps)


def _all_to_all(name: str, size: float, ep: ExpertParallel) -> Collective:
    limited = ep.dispatcher in ("deepep", "hybridep")
    return Collective(
        name=f"{name}.all_to_all",
        kind="all_to_all",
        axis="ep",
        size_bytes=size,
        copies=ep.top_k if limited else 0,
        node_limit=ep.node_limit if limited else 0,
    )


def _announce(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
    """What Megatron-LM's dispatchers exchange before the rows, forward: rows per expert, or who wants which
    token.
    """
    if ep.size == 1 or ep.dispatcher in ("deepep", "hybridep"):
        return ()
    size = COUNT_BYTES * ep.experts
    if ep.dispatcher == "allgather":
        tokens = node.boundary_bytes / (2.0 * ep.row_width * ep.top_k) / tp.share(Region.SEQUENCE)
        size = tokens * ep.experts * (MAP_BYTES + PROBABILITY_BYTES)
    return (Collective(name="route.all_gather", kind="all_gather", axis="ep", size_bytes=size * ep.size),)


def _probabilities(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
    """Each row's probability, or its gradient, travels by itself (Megatron-LM's all-to-all dispatcher)."""
    if ep.size == 1 or ep.dispatcher != "alltoall":
        return ()
    rows = node.boundary_bytes / (2.0 * ep.row_width) / tp.share(Region.SEQUENCE)
    size = rows * PROBABILITY_BYTES * ep.load.peak
    return (_all_to_all("probabilities", size, ep),)


def _count(ep: ExpertParallel) -> Copy:
    """Rows per expert, copied to the host."""
    return Copy(name="tokens_per_expert", kind="d2h", size_bytes=COUNT_BYTES * ep.experts)


def expert_parallel(run: RunSpec, layer: int) -> ExpertParallel:
    """How a run divides the experts of one layer."""
    model, p, runtime = run.model, run.parallelism, run.runtime
    if not model.is_moe:
        return ExpertParallel()
    limited = model.topk_group if model.n_group > 1 else 0  # groups are placed node by node
    static = run.training.moe.pad_to_capacity or runtime.cuda_graphs == "full"
    return ExpertParallel(
        size=p.ep,
        tensor=p.etp or p.tp,
        experts=model.num_experts,
        top_k=model.num_experts_per_tok,
        row_width=model.moe_latent_size or model.hidden_size,
        dispatcher=runtime.moe_dispatcher,
        node_limit=limited,
        load=router_load(run.training.moe, p.ep, model.num_experts, seed=(run.simulation.seed, layer)),
        single_launch=runtime.moe_grouped_gemm == "fused",
        synchronises=not static,
        dispatch_bytes=DISPATCHED_BYTES[runtime.moe_dispatch_precision],
    )
