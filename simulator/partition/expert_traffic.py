"""What travels between the ranks of routed experts: rows there and back, and what announces them.

Sizes are those of one rank; ``node`` is a whole node, whose ``boundary_bytes`` are all rows of a TP group's
tokens.
"""

from __future__ import annotations

from simulator.graph.layer import Node, Region
from simulator.graph.operators import Collective, CollectiveKind, Copy
from simulator.partition.expert_layout import ExpertParallel
from simulator.partition.tensor import TensorParallel

PROBABILITY_BYTES = 4.0
COUNT_BYTES = 8.0  # rows per expert, int64
MAP_BYTES = 1.0  # whether a token goes to an expert


def announcement(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
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


def probabilities(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
    """Each row's probability, or its gradient, travels by itself (Megatron-LM's all-to-all dispatcher)."""
    if ep.size == 1 or ep.dispatcher != "alltoall":
        return ()
    rows = node.boundary_bytes / (2.0 * ep.row_width) / tp.share(Region.SEQUENCE)
    size = rows * PROBABILITY_BYTES * ep.load.peak
    return (_all_to_all("probabilities", size, ep),)


def row_count(ep: ExpertParallel) -> Copy:
    """Rows per expert, copied to the host."""
    return Copy(name="tokens_per_expert", kind="d2h", size_bytes=COUNT_BYTES * ep.experts)


def dispatch(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
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


def combine(node: Node, tp: TensorParallel, ep: ExpertParallel) -> tuple[Collective, ...]:
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
        bulk=ep.dispatcher == "hybridep",
    )
