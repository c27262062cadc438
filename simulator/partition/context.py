"""Context parallelism: attention over sequences whose tokens lie on several ranks.

Token-wise work needs only its own tokens. Attention meets the others' keys and values in one of these ways:

- ``ring``: keys and values travel round, each hop beside a block of attention (Liu 2023; Transformer
  Engine's ``p2p``). Rank r holds slices r and 2c−1−r of 2c, so that causal blocks cost the same everywhere.
- ``all-gather``: keys and values are gathered whole, here with the same slices (Llama 3, section 3.3.2).
- ``ulysses``: an all-to-all gives each rank whole sequences of some heads (Jacobs 2023).
- ``hierarchical``: all-to-all inside groups of ``inner`` ranks, ring across them (USP, Fang 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from simulator.graph.layer import Node
from simulator.graph.operators import (
    DTYPE_BYTES,
    Attention,
    Awaited,
    Axis,
    Collective,
    MemoryBound,
    SendRecv,
)
from simulator.partition.document_load import ring_masks, share_documents
from simulator.partition.segment import SegmentBuilder
from simulator.spec.documents import Documents

WIDE_BYTES = 2.0  # formats in which gradients may be summed
Method = Literal["ring", "all-gather", "ulysses", "hierarchical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextParallel:
    """How many ranks share each sequence, and how their attention meets. ``inner``: of ``hierarchical``.

    ``documents``: packed into each sequence; ``whole_sequences``: slices are cut from those.
    """

    size: int = 1
    method: Method = "ring"
    inner: int = 1
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAttention(Node):
    """An attention core of whole sequences, shared by ``context``; its heads are already one TP rank's."""

    context: ContextParallel

    @property
    def core(self) -> Attention:
        """The forward operator, over all tokens."""
        assert isinstance(self.forward, Attention), "only attention is shared"
        return self.forward

    @property
    def buffer_bytes(self) -> float:
        """Others' keys and values on a rank: two blocks on a ring, all of them where they are gathered."""
        core = _own_heads(self.core, self.context)
        blocks = self.context.token_ranks
        if blocks == 1:
            return 0.0
        return _kv_bytes(core) * (1.0 if self.context.method == "all-gather" else 2.0 / blocks)


def share_attention(node: Node, context: ContextParallel) -> Node:
    """The node as it is, unless it is an attention core over tokens of several ranks."""
    if context.size == 1 or not isinstance(node.forward, Attention):
        return node
    if type(node) is not Node:
        raise TypeError(f"attention {node.forward.name!r} is shared already")
    fields = {name: getattr(node, name) for name in Node.__dataclass_fields__}
    return SharedAttention(**fields, context=context)


def shared_forward(node: SharedAttention, out: SegmentBuilder) -> None:
    """Appends one rank's attention over everybody's keys and values."""
    context, core = node.context, node.core
    mine = _own_heads(core, context)
    if context.head_ranks > 1:
        _exchange_heads(core, context, _query_bytes(core) + _kv_bytes(core, copies=context.head_ranks), out)
    if context.token_ranks == 1:
        out.compute(mine)
    elif context.method == "all-gather":
        _gather(mine, context, out)
        _attend_gathered(mine, context, out)
    else:
        _ring_forward(mine, context, out)
    if context.head_ranks > 1:
        _exchange_heads(core, context, _output_bytes(core), out)


def shared_backward(node: SharedAttention, out: SegmentBuilder) -> None:
    """Appends the gradients of :func:`shared_forward`."""
    context, core = node.context, replace(node.core, direction="backward", name=f"{node.core.name}.backward")
    mine = _own_heads(core, context)
    if context.head_ranks > 1:
        _exchange_heads(core, context, _output_bytes(core), out)
    if context.token_ranks == 1:
        out.compute(mine)
    elif context.method == "all-gather":
        _gather(mine, context, out)  # only a rank's own keys and values were kept
        _attend_gathered(mine, context, out)
        reorder = _copy(f"{core.name}.reorder", _kv_bytes(mine))
        out.compute(reorder)
        out.exposed(_collective(core, "reduce_scatter", context.token_axis, _kv_bytes(mine)))
    else:
        _ring_backward(mine, context, out)
    if context.head_ranks > 1:
        _exchange_heads(core, context, _query_bytes(core) + _kv_bytes(core, copies=context.head_ranks), out)


def _ring_forward(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """c blocks beside the hops, each block's output added to those before it."""
    merge = _merge(core, context.token_ranks)
    for step, (piece, arrived) in enumerate(_rounds(core, context, out)):
        out.compute(piece, waits=arrived)
        if step:
            out.compute(merge)


def _rounds(
    core: Attention, context: ContextParallel, out: SegmentBuilder
) -> Iterator[tuple[Attention, tuple[int, ...]]]:
    """Blocks with the hops they wait for: c − 1, of keys and values, each beside the block before its own."""
    c = context.token_ranks
    hop = _hop(core, context, _kv_bytes(core) / c)
    arrived: tuple[int, ...] = ()
    for step, piece in enumerate(_blocks(core, context)):
        sent: tuple[int, ...] = ()
        if step < c - 1:
            sent = (out.alongside(hop, arrived) if arrived else out.communicate(hop),)
        yield piece, arrived
        arrived = sent


def _ring_backward(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """c blocks and c hops: keys and values, then c − 2 times those and their gradients, then gradients.

    A hop carries what the block before it has added to the gradients, so it starts after that. Sums in 8 bits
    would lose too much, so there the gradients of all blocks go to their ranks at the end.
    """
    c = context.token_ranks
    one = _kv_bytes(core) / c
    if DTYPE_BYTES[core.dtype] < WIDE_BYTES:
        for piece, arrived in _rounds(core, context, out):
            out.compute(piece, waits=arrived)
        out.exposed(_collective(core, "all_to_all", context.token_axis, _kv_bytes(core)))
        out.compute(_accumulate(core, 1))
        return
    arrived = ()
    for step, piece in enumerate(_blocks(core, context)):
        blocks = (step < c - 1) + (step > 0)
        sent = out.communicate(_hop(core, context, blocks * one))
        out.compute(piece, waits=arrived)
        if step:
            out.compute(_accumulate(core, c), waits=(sent,))
        arrived = () if step else (sent,)


def _blocks(core: Attention, context: ContextParallel) -> list[Attention]:
    """A rank's blocks in order: its own tokens, then everybody else's.

    Causal blocks of a zig-zag ring are two squares of slices each; those of the last rank, on which the ring
    waits, take all its queries and the first slice of the others' keys.
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


def _attend_gathered(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """With all keys at hand; inside documents one rank has more to do than the others, which wait for it."""
    if context.documents is None:
        for piece in _slices(core, context):
            out.compute(piece)
        return
    c = context.token_ranks
    share = share_documents(
        context.documents,
        core.seq_q,
        core.window,
        c,
        core.batch,
        whole_sequences=context.whole_sequences,
    )
    own = replace(core, seq_q=core.seq_q // c, mask=share.mask)
    out.compute(own)
    if share.peak > 1.0:
        fullest = replace(own, mask=share.mask.times(share.peak))
        out.compute(Awaited(work=fullest, axis=context.token_axis, beyond=own))


def _slices(core: Attention, context: ContextParallel) -> list[Attention]:
    """With all keys at hand: a rank's two slices against the keys before them; the first's differ most."""
    if not core.causal:
        return [replace(core, seq_q=core.seq_q // context.token_ranks)]
    tokens = core.seq_q // (2 * context.token_ranks)
    return [replace(core, seq_q=tokens, seq_kv=tokens), replace(core, seq_q=tokens)]


def _own_heads(core: Attention, context: ContextParallel) -> Attention:
    """Attention of the heads that a rank keeps after the all-to-all."""
    ranks = context.head_ranks
    return replace(core, heads=core.heads // ranks, kv_heads=max(1, core.kv_heads // ranks))


def _exchange_heads(core: Attention, context: ContextParallel, size: float, out: SegmentBuilder) -> None:
    """Tokens of all heads for all tokens of some: an all-to-all between copies into and out of its order."""
    share = size / context.size
    out.compute(_copy(f"{core.name}.pack", share))
    out.exposed(_collective(core, "all_to_all", context.head_axis, share))
    out.compute(_copy(f"{core.name}.unpack", share))


def _gather(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """Everybody's keys and values, put into the order of the sequence."""
    out.exposed(_collective(core, "all_gather", context.token_axis, _kv_bytes(core)))
    out.compute(_copy(f"{core.name}.reorder", _kv_bytes(core)))


def _collective(
    core: Attention, kind: Literal["all_gather", "reduce_scatter", "all_to_all"], axis: Axis, size: float
) -> Collective:
    return Collective(name=f"{core.name}.{kind}", kind=kind, axis=axis, size_bytes=size)


def _hop(core: Attention, context: ContextParallel, size: float) -> SendRecv:
    return SendRecv(name=f"{core.name}.ring", axis=context.token_axis, size_bytes=size)


def _copy(name: str, size: float) -> MemoryBound:
    return MemoryBound(name=name, kind="transpose", read_bytes=size, write_bytes=size)


def _merge(core: Attention, blocks: int) -> MemoryBound:
    """Adds a block's output to those before it, rescaled by their softmax statistics."""
    size = _output_bytes(core) / blocks
    return MemoryBound(
        name=f"{core.name}.merge", kind="attention_merge", read_bytes=2 * size, write_bytes=size
    )


def _accumulate(core: Attention, blocks: int) -> MemoryBound:
    """Adds a block's gradients of queries, keys and values."""
    size = (_query_bytes(core) + _kv_bytes(core)) / blocks
    return MemoryBound(
        name=f"{core.name}.accumulate",
        kind="attention_merge",
        read_bytes=2 * size,
        write_bytes=size,
        kernels=2,
    )


def _query_bytes(core: Attention) -> float:
    """All queries of a core."""
    return DTYPE_BYTES[core.dtype] * core.batch * core.seq_q * core.heads * core.qk_head_dim


def _output_bytes(core: Attention) -> float:
    """All outputs of a core."""
    return DTYPE_BYTES[core.dtype] * core.batch * core.seq_q * core.heads * core.v_head_dim


def _kv_bytes(core: Attention, copies: int = 1) -> float:
    """All keys and values of a core; heads fewer than ``copies`` ranks are sent to several."""
    width = max(core.kv_heads, copies) * (core.qk_head_dim + core.v_head_dim)
    return DTYPE_BYTES[core.dtype] * core.batch * core.seq_kv * width
