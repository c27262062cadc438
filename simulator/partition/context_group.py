"""Ranks that share sequences, the blocks of attention that each of them computes, and their sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from simulator.graph.operators import DTYPE_BYTES, Attention, Awaited, Axis, Collective, MemoryBound, SendRecv
from simulator.partition.document_load import ring_masks
from simulator.partition.segment import SegmentBuilder
from simulator.spec.documents import Documents

Method = Literal["ring", "torch-ring", "all-gather", "ulysses", "hierarchical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParallel:
    """How many ranks share each sequence, and how their attention meets. ``inner``: of ``hierarchical``.

    ``balanced``: every rank holds an early and a late slice of each sequence; else one slice, in order.
    ``compiled``: of ``torch-ring``: Inductor runs it. ``documents``: packed into each sequence;
    ``whole_sequences``: slices are cut from those.
    """

    size: int = 1
    method: Method = "ring"
    inner: int = 1
    balanced: bool = True
    compiled: bool = False
    documents: Documents | None = None
    whole_sequences: bool = False

    @property
    def head_ranks(self) -> int:
        """Ranks that divide heads among them."""
        return {"ulysses": self.size, "hierarchical": self.inner}.get(self.method, 1)

    @property
    def token_ranks(self) -> int:
        """Ranks that divide the tokens of a head."""
        return self.size // self.head_ranks

    @property
    def head_axis(self) -> Axis:
        """The group of the all-to-alls."""
        return "cp" if self.token_ranks == 1 else "cp_inner"

    @property
    def token_axis(self) -> Axis:
        """The group of rings and gathers."""
        return "cp" if self.head_ranks == 1 else "cp_outer"


def own_heads(core: Attention, context: ContextParallel) -> Attention:
    """Attention of the heads that a rank keeps after the all-to-all."""
    ranks = context.head_ranks
    return replace(core, heads=core.heads // ranks, kv_heads=max(1, core.kv_heads // ranks))


def blocks(core: Attention, context: ContextParallel) -> list[Attention]:
    """A rank's blocks in order: its own tokens, then everybody else's.

    Causal blocks of a zig-zag ring are two squares of slices each; those of the last rank, on which the ring
    waits, take all its queries and the first slice of the others' keys. Of slices in order a rank skips the
    later ones, half of all on average: these are that average (see :func:`await_fullest`).
    """
    c = context.token_ranks
    tokens = core.seq_q // c
    if context.documents is not None:
        first, others = ring_masks(context.documents, core.seq_q, c)
        own = replace(core, seq_q=tokens, seq_kv=tokens, mask=first)
        return [own] + [replace(own, mask=others, causal=False)] * (c - 1)
    keys = tokens // 2 if core.causal else tokens
    own = replace(core, seq_q=tokens, seq_kv=tokens)
    return [own] + [replace(core, seq_q=tokens, seq_kv=keys, causal=False)] * (c - 1)


def await_fullest(core: Attention, piece: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """Where slices are in order, the last rank skips none: the others wait for whole blocks."""
    if core.causal and not context.balanced and not piece.causal:
        whole = replace(piece, seq_kv=2 * piece.seq_kv)
        out.compute(Awaited(work=whole, axis=context.token_axis, beyond=piece))


def collective(
    core: Attention, kind: Literal["all_gather", "reduce_scatter", "all_to_all"], axis: Axis, size: float
) -> Collective:
    """Of keys, values or heads of a core."""
    return Collective(name=f"{core.name}.{kind}", kind=kind, axis=axis, size_bytes=size)


def hop(core: Attention, context: ContextParallel, size: float) -> SendRecv:
    """From a rank to the next one of its ring."""
    return SendRecv(name=f"{core.name}.ring", axis=context.token_axis, size_bytes=size)


def copy(name: str, size: float) -> MemoryBound:
    """A tensor into another order."""
    return MemoryBound(name=name, kind="transpose", read_bytes=size, write_bytes=size)


def query_bytes(core: Attention) -> float:
    """All queries of a core."""
    return DTYPE_BYTES[core.dtype] * core.batch * core.seq_q * core.heads * core.qk_head_dim


def output_bytes(core: Attention) -> float:
    """All outputs of a core."""
    return DTYPE_BYTES[core.dtype] * core.batch * core.seq_q * core.heads * core.v_head_dim


def kv_bytes(core: Attention, copies: int = 1) -> float:
    """All keys and values of a core; heads fewer than ``copies`` ranks are sent to several."""
    width = max(core.kv_heads, copies) * (core.qk_head_dim + core.v_head_dim)
    return DTYPE_BYTES[core.dtype] * core.batch * core.seq_kv * width
