"""Attention on a ring as PyTorch runs it (``torch.distributed.tensor.experimental._attention``, version 2.6).

Keys and values of all ranks are gathered once (``set_rotate_method("allgather")``, its default), then
attended block by block. Outputs, and gradients of queries, keys and values, are summed in fp32; the sums of
keys and values hop once behind each block until they are back home. Tensors are those that the software hands
to ``scaled_dot_product_attention``: where that is keys and values of every query head, so is what travels.

Eager, the gather runs beside a rank's first block and each hop beside the next block. In a compiled graph
every collective is waited for where it starts (``_functional_collectives._maybe_wrap_tensor`` while tracing),
and Inductor does not reorder that (``reorder_for_compute_comm_overlap`` is off); sums are fused, and one
gather serves both passes, kept for the backward or recomputed with the forward (equal nodes of the joint
graph are one, ``fx_graph_cse``).
"""

from __future__ import annotations

from simulator.graph.operators import DTYPE_BYTES, Attention, MemoryBound
from simulator.partition.context_group import (
    ContextParallel,
    await_fullest,
    blocks,
    collective,
    copy,
    hop,
    kv_bytes,
    output_bytes,
    query_bytes,
)
from simulator.partition.segment import SegmentBuilder

SUM_BYTES = 4.0  # fp32, ``_cp_options.convert_to_f32``


def torch_ring_forward(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """A gather, and c blocks, each merged into those before it."""
    gathered = _gather(core, context, out)
    if not context.compiled:
        size = output_bytes(core) / context.token_ranks
        convert = _pass(f"{core.name}.convert", size, _wide(core) * size)
    for step, piece in enumerate(blocks(core, context)):
        out.compute(piece, waits=gathered if step or context.compiled else ())
        await_fullest(core, piece, context, out)
        if step:
            out.compute(_merge(core, context, step))
        elif not context.compiled:
            out.compute(convert)
    if not context.compiled:
        out.compute(_pass(f"{core.name}.narrow", _wide(core) * size, size))


def torch_ring_backward(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """c blocks, each adding to the sums, and c hops of those of keys and values."""
    c, wide = context.token_ranks, _wide(core)
    kv, query = kv_bytes(core) / c, query_bytes(core) / c
    gathered: tuple[int, ...] = ()
    if not context.compiled:
        gathered = _gather(core, context, out)
        out.compute(_pass(f"{core.name}.zero", 0.0, wide * (query + kv), kernels=3))
    sums = hop(core, context, wide * kv)
    arrived: tuple[int, ...] = ()
    for step, piece in enumerate(blocks(core, context)):
        out.compute(piece, waits=gathered if step else ())
        await_fullest(core, piece, context, out)
        out.compute(_accumulate(core, context, piece, first=not step), waits=arrived)
        if context.compiled:
            out.exposed(sums)
        else:
            arrived = (out.communicate(sums),)
    narrowed = kv if context.compiled else query + kv
    out.compute(_pass(f"{core.name}.narrow", wide * narrowed, narrowed), waits=arrived)


def torch_ring_buffers(core: Attention, context: ContextParallel) -> float:
    """Bytes beside what a rank keeps: everybody's keys and values; sums, those of keys and values twice."""
    sums = query_bytes(core) + 2 * kv_bytes(core)
    return kv_bytes(core) + _wide(core) * sums / context.token_ranks


def _gather(core: Attention, context: ContextParallel, out: SegmentBuilder) -> tuple[int, ...]:
    """Keys behind values in one buffer, and that of all ranks."""
    out.compute(copy(f"{core.name}.pack", kv_bytes(core) / context.token_ranks))
    return (out.communicate(collective(core, "all_gather", context.token_axis, kv_bytes(core))),)


def _merge(core: Attention, context: ContextParallel, step: int) -> MemoryBound:
    """``out − sigmoid(block_lse − lse)·(out − block_out)``: one pass, or five of one operator each."""
    block = output_bytes(core) / context.token_ranks
    wide = _wide(core) * block
    name = f"{core.name}.merge"
    if not context.compiled:  # convert; subtract, multiply, subtract; statistics are small
        return _pass(name, block + 5 * wide, 4 * wide, kernels=9)
    before = block if step == 1 else wide
    return _pass(name, block + before, block if step == context.token_ranks - 1 else wide, kernels=2)


def _accumulate(core: Attention, context: ContextParallel, piece: Attention, *, first: bool) -> MemoryBound:
    """Adds a block's gradients to the sums, and lays those of keys and values behind one another."""
    wide = _wide(core)
    query, kv = (size / context.token_ranks for size in (query_bytes(core), kv_bytes(core)))
    sums, name = wide * (query + kv), f"{core.name}.accumulate"
    added = query_bytes(piece) + kv_bytes(piece)
    if context.compiled:  # zeros are no pass of their own
        return _pass(name, added + (0.0 if first else sums), sums, kernels=2)
    return _pass(name, added + sums + wide * kv, sums + wide * kv, kernels=4)


def _pass(name: str, read: float, write: float, kernels: int = 1) -> MemoryBound:
    return MemoryBound(name=name, kind="attention_merge", read_bytes=read, write_bytes=write, kernels=kernels)


def _wide(core: Attention) -> float:
    """Bytes of a sum over those of a core's element."""
    return SUM_BYTES / DTYPE_BYTES[core.dtype]
