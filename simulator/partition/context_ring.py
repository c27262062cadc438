"""Attention on a ring as Transformer Engine runs it: keys, values and their gradients hop beside blocks."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.graph.operators import DTYPE_BYTES, Attention, MemoryBound
from simulator.partition.context_group import (
    ContextParallel,
    await_fullest,
    blocks,
    collective,
    hop,
    kv_bytes,
    output_bytes,
    query_bytes,
)
from simulator.partition.segment import SegmentBuilder

WIDE_BYTES = 2.0  # formats in which gradients may be summed


def ring_forward(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """c blocks beside the hops, each block's output added to those before it."""
    merge = _merge(core, context.token_ranks)
    for step, (piece, arrived) in enumerate(_rounds(core, context, out)):
        out.compute(piece, waits=arrived)
        await_fullest(core, piece, context, out)
        if step:
            out.compute(merge)


def ring_backward(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """c blocks and c hops: keys and values, then c − 2 times those and their gradients, then gradients.

    A hop carries what the block before it has added to the gradients, so it starts after that. Sums in 8 bits
    would lose too much, so there the gradients of all blocks go to their ranks at the end.
    """
    c = context.token_ranks
    one = kv_bytes(core) / c
    if DTYPE_BYTES[core.dtype] < WIDE_BYTES:
        for piece, arrived in _rounds(core, context, out):
            out.compute(piece, waits=arrived)
            await_fullest(core, piece, context, out)
        out.exposed(collective(core, "all_to_all", context.token_axis, kv_bytes(core)))
        out.compute(_accumulate(core, 1))
        return
    arrived = ()
    for step, piece in enumerate(blocks(core, context)):
        carried = (step < c - 1) + (step > 0)
        sent = out.communicate(hop(core, context, carried * one))
        out.compute(piece, waits=arrived)
        await_fullest(core, piece, context, out)
        if step:
            out.compute(_accumulate(core, c), waits=(sent,))
        arrived = () if step else (sent,)


def _rounds(
    core: Attention, context: ContextParallel, out: SegmentBuilder
) -> Iterator[tuple[Attention, tuple[int, ...]]]:
    """Blocks with the hops they wait for: c − 1, of keys and values, each beside the block before its own."""
    c = context.token_ranks
    one = hop(core, context, kv_bytes(core) / c)
    arrived: tuple[int, ...] = ()
    for step, piece in enumerate(blocks(core, context)):
        sent: tuple[int, ...] = ()
        if step < c - 1:
            sent = (out.alongside(one, arrived) if arrived else out.communicate(one),)
        yield piece, arrived
        arrived = sent


def _merge(core: Attention, parts: int) -> MemoryBound:
    """Adds a block's output to those before it, rescaled by their softmax statistics."""
    size = output_bytes(core) / parts
    return MemoryBound(
        name=f"{core.name}.merge", kind="attention_merge", read_bytes=2 * size, write_bytes=size
    )


def _accumulate(core: Attention, parts: int) -> MemoryBound:
    """Adds a block's gradients of queries, keys and values."""
    size = (query_bytes(core) + kv_bytes(core)) / parts
    return MemoryBound(
        name=f"{core.name}.accumulate",
        kind="attention_merge",
        read_bytes=2 * size,
        write_bytes=size,
        kernels=2,
    )
