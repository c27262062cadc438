"""Tensor parallelism on grids of ranks: 2-D, 2.5-D and 3-D, as Colossal-AI has it.

A linear layer is [m, k] × [k, n] (tokens, inputs, outputs). Activations are cut by tokens and by features, so
that no rank holds a whole one; weights are cut both ways. Token-wise work and attention need no messages but
for the statistics of norms and of the loss.

- ``2d``, q × q ranks: SUMMA (Xu 2021, Optimus, arXiv 2104.05343). In each of q steps a block of the input is
  broadcast along rows and one of the weights along columns; gradients broadcast one operand and reduce the
  other.
- ``2.5d``, q × q × d: tokens are cut over d such grids as well, each with all weights, whose gradients are
  summed over the depth (Wang 2021, Tesseract, arXiv 2105.14500).
- ``3d``, l × l × l: input and weights are gathered along one axis each, partial outputs reduce-scattered
  along the third; nothing is held twice (Bian 2021, arXiv 2105.14450).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from simulator.graph.layer import Node, Region
from simulator.graph.operators import Attention, Axis, Collective, CollectiveKind, Gemm, KernelOp, MemoryBound
from simulator.partition.segment import SegmentBuilder

ELEMENT_BYTES = 2.0  # activations, weights and their partial sums travel in 16 bits
STATISTICS_BYTES = 8.0  # two fp32 sums per token of a norm
Mode = Literal["1d", "2d", "2.5d", "3d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The shape of a tensor-parallel group: ``side`` ranks a row and a column, ``depth`` such squares."""

    mode: Mode
    side: int
    depth: int = 1
    tokens: int = 0  # of a microbatch, whole

    @property
    def ranks(self) -> int:
        """Of the group."""
        return self.side**2 * self.depth

    @property
    def token_parts(self) -> int:
        """Into how many parts tokens are cut."""
        return self.side * self.depth

    @property
    def weight_parts(self) -> int:
        """Into how many parts weights are cut; 2.5-D holds them once per depth."""
        return self.side**2 if self.mode == "2.5d" else self.ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class GridNode(Node):
    """One rank's share of a node; ``whole`` is its product before any cut, where it is a linear layer."""

    grid: Grid
    whole: Gemm | None = None

    @property
    def statistics(self) -> float:
        """Bytes of a norm's sums over features, which the ranks of a row add up."""
        if self.module != "layernorm":
            return 0.0
        return self.grid.tokens / self.grid.token_parts * STATISTICS_BYTES


def share_on_grid(node: Node, grid: Grid) -> GridNode:
    """One rank's share of a dense layer's node."""
    fields = {name: getattr(node, name) for name in Node.__dataclass_fields__}
    linear = node.forward if isinstance(node.forward, Gemm) and node.parameters else None
    for key in ("input_gradient", "weight_gradient"):
        fields[key] = tuple(_share(op, grid) for op in getattr(node, key))
    fields["forward"] = _share(node.forward, grid)
    fields["parameters"] = node.parameters / grid.weight_parts
    fields["replicated_parameters"] = node.replicated_parameters / grid.side
    fields["saves"] = tuple(replace(t, bytes=t.bytes / grid.ranks) for t in node.saves)
    fields["reductions"] = tuple(size / grid.token_parts for size in node.reductions)
    blocks = () if linear is None else (sum(_blocks(linear, grid)),)
    fields["transients"] = (blocks, blocks)
    return GridNode(**fields, grid=grid, whole=linear)


def _share(op: KernelOp, grid: Grid) -> KernelOp:
    """An equal part of the work. Products of weights are done in steps, of which this is the sum."""
    if isinstance(op, Attention):
        return replace(
            op,
            batch=op.batch // grid.token_parts,
            heads=op.heads // grid.side,
            kv_heads=max(1, op.kv_heads // grid.side),
        )
    if isinstance(op, MemoryBound):
        return replace(op, read_bytes=op.read_bytes / grid.ranks, write_bytes=op.write_bytes / grid.ranks)
    if isinstance(op, Gemm):
        if op.batch > 1:  # products of activations: one per sequence and head
            return replace(op, batch=op.batch // grid.ranks)
        return _local(op, grid)
    raise TypeError(f"a grid of ranks does not know {type(op).__name__} {op.name!r}")


def _parts(op: Gemm, grid: Grid) -> tuple[int, int, int]:
    """Into how many parts m, n and k of a local product are cut. Tokens are m, in the weight gradient k."""
    tokens, side = (grid.side, grid.side) if grid.mode == "3d" else (grid.token_parts, grid.side)
    return (side, side, tokens) if op.role == "wgrad" else (tokens, side, side)


def _local(op: Gemm, grid: Grid) -> Gemm:
    """The product of one step (3-D: the only one), on blocks."""
    m, n, k = _parts(op, grid)
    return replace(op, m=op.m // m, n=op.n // n, k=op.k // k)


def _blocks(linear: Gemm, grid: Grid) -> tuple[float, float, float]:
    """Bytes of one block of input, weights and output."""
    local = _local(linear, grid)
    m, n, k = local.m, local.n, local.k
    return m * k * ELEMENT_BYTES, k * n * ELEMENT_BYTES, m * n * ELEMENT_BYTES


def grid_forward(node: GridNode, out: SegmentBuilder) -> None:
    """Appends a rank's forward work with its messages, none of which is hidden."""
    grid = node.grid
    if node.region is Region.EMBEDDING:
        out.exposed(_message(node, "all_gather", "tp_col", _table_bytes(node)))
    if node.whole is None:
        out.compute(node.forward)
    elif grid.mode == "3d":
        inputs, weights, outputs = _blocks(node.whole, grid)
        _gathered(node, (("tp_row", inputs), ("tp_col", weights)), node.forward, ("tp_depth", outputs), out)
    else:
        inputs, weights, _ = _blocks(node.whole, grid)
        for _ in range(grid.side):
            _exposed(node, "broadcast", (("tp_row", inputs), ("tp_col", weights)), out)
            out.compute(_step(node.forward))
    for size in (*node.reductions, *((node.statistics,) if node.statistics else ())):
        out.exposed(_message(node, "all_reduce", "tp_row", size))


def grid_backward(node: GridNode, out: SegmentBuilder) -> None:
    """Appends a rank's gradients with their messages."""
    if node.whole is None:
        if node.statistics:
            out.exposed(_message(node, "all_reduce", "tp_row", node.statistics))
        for op in node.input_gradient:
            out.compute(op)
        for op in node.weight_gradient:
            out.compute(op, weight_gradient=True)
        if node.region is Region.EMBEDDING:
            out.exposed(_message(node, "reduce_scatter", "tp_col", _table_bytes(node)))
        return
    for op in (*node.input_gradient, *node.weight_gradient):
        if not isinstance(op, Gemm):
            out.compute(op, weight_gradient=True)
        elif node.grid.mode == "3d":
            _gathered_gradient(node, op, out)
        else:
            _stepped_gradient(node, op, out)


def _gathered_gradient(node: GridNode, op: Gemm, out: SegmentBuilder) -> None:
    """3-D: both operands gathered, the result scattered along the axis that its own operand came by."""
    assert node.whole is not None
    inputs, weights, outputs = _blocks(node.whole, node.grid)
    axes: dict[str, tuple[Axis, float]] = {
        "gradient": ("tp_depth", outputs),
        "weights": ("tp_col", weights),
        "inputs": ("tp_row", inputs),
    }
    operand, result = ("inputs", "weights") if op.role == "wgrad" else ("weights", "inputs")
    _gathered(node, (axes["gradient"], axes[operand]), op, axes[result], out)


def _gathered(
    node: GridNode,
    operands: tuple[tuple[Axis, float], tuple[Axis, float]],
    op: KernelOp,
    result: tuple[Axis, float],
    out: SegmentBuilder,
) -> None:
    _exposed(node, "all_gather", operands, out)
    out.compute(op)
    out.exposed(_message(node, "reduce_scatter", *result))


def _stepped_gradient(node: GridNode, op: Gemm, out: SegmentBuilder) -> None:
    """SUMMA's dA = dC·Bᵀ, dB = Aᵀ·dC: one operand is broadcast, each step's result reduced to its owner."""
    assert node.whole is not None
    inputs, weights, _ = _blocks(node.whole, node.grid)
    sent: tuple[Axis, float] = ("tp_col", weights)
    kept: tuple[Axis, float] = ("tp_row", inputs)
    if op.role == "wgrad":
        sent, kept = kept, sent
    partial = replace(op, accumulate=False, output_bytes_per_element=ELEMENT_BYTES)
    for _ in range(node.grid.side):
        out.exposed(_message(node, "broadcast", *sent))
        out.compute(partial)
        out.exposed(_message(node, "reduce", *kept))
    if op.role == "wgrad" and node.grid.depth > 1:
        out.exposed(_message(node, "all_reduce", "tp_depth", weights))


def _step(op: KernelOp) -> KernelOp:
    """A step's product is added to those before it."""
    return replace(op, accumulate=True) if isinstance(op, Gemm) else op


def _table_bytes(node: GridNode) -> float:
    """A rank's columns of the whole vocabulary."""
    return node.parameters * node.grid.weight_parts / node.grid.side * ELEMENT_BYTES


def _exposed(
    node: GridNode, kind: CollectiveKind, messages: tuple[tuple[Axis, float], ...], out: SegmentBuilder
) -> None:
    """Messages along different axes, which run at the same time."""
    started = tuple(out.communicate(_message(node, kind, *each)) for each in messages)
    out.pending = started


def _message(node: GridNode, kind: CollectiveKind, axis: Axis, size: float) -> Collective:
    return Collective(name=f"{node.forward.name}.{kind}", kind=kind, axis=axis, size_bytes=size)
