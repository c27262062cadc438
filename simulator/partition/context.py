"""Context parallelism: attention over sequences whose tokens lie on several ranks.

Token-wise work needs only its own tokens. Attention meets the others' keys and values in one of these ways:

- ``ring``: keys and values travel round, each hop beside a block of attention (Liu 2023; Transformer
  Engine's ``p2p``). Rank r holds slices r and 2c−1−r of 2c, so that causal blocks cost the same everywhere;
  or, not balanced, slice r of c.
- ``torch-ring``: the same blocks with keys and values gathered first, and sums in fp32 (PyTorch).
- ``all-gather``: keys and values are gathered whole, here with the same slices (Llama 3, section 3.3.2).
- ``ulysses``: an all-to-all gives each rank whole sequences of some heads (Jacobs 2023).
- ``hierarchical``: all-to-all inside groups of ``inner`` ranks, ring across them (USP, Fang 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.graph.layer import Node, Region, Tensor
from simulator.graph.operators import Attention, Awaited
from simulator.partition.context_group import (
    ContextParallel,
    collective,
    copy,
    kv_bytes,
    output_bytes,
    own_heads,
    query_bytes,
)
from simulator.partition.context_ring import ring_backward, ring_forward
from simulator.partition.context_torch_ring import (
    torch_ring_backward,
    torch_ring_buffers,
    torch_ring_forward,
)
from simulator.partition.document_load import share_documents
from simulator.partition.segment import SegmentBuilder


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
        core = own_heads(self.core, self.context)
        blocks = self.context.token_ranks
        if blocks == 1:
            return 0.0
        if self.context.method == "torch-ring":
            return torch_ring_buffers(core, self.context)
        return kv_bytes(core) * (1.0 if self.context.method == "all-gather" else 2.0 / blocks)


def share_attention(node: Node, context: ContextParallel) -> Node:
    """The node as it is, unless it is an attention core over tokens of several ranks."""
    if context.size == 1 or not isinstance(node.forward, Attention):
        return node
    if type(node) is not Node:
        raise TypeError(f"attention {node.forward.name!r} is shared already")
    fields = {name: getattr(node, name) for name in Node.__dataclass_fields__}
    if context.method == "torch-ring" and context.compiled:
        fields["saves"] = (*node.saves, _gathered(node.forward))
    return SharedAttention(**fields, context=context)


def shared_forward(node: SharedAttention, out: SegmentBuilder) -> None:
    """Appends one rank's attention over everybody's keys and values."""
    context, core = node.context, node.core
    mine = own_heads(core, context)
    if context.head_ranks > 1:
        _exchange_heads(core, context, query_bytes(core) + kv_bytes(core, copies=context.head_ranks), out)
    if context.token_ranks == 1:
        out.compute(mine)
    elif context.method == "all-gather":
        _gather(mine, context, out)
        _attend_gathered(mine, context, out)
    elif context.method == "torch-ring":
        torch_ring_forward(mine, context, out)
    else:
        ring_forward(mine, context, out)
    if context.head_ranks > 1:
        _exchange_heads(core, context, output_bytes(core), out)


def shared_backward(node: SharedAttention, out: SegmentBuilder) -> None:
    """Appends the gradients of :func:`shared_forward`."""
    context, core = node.context, replace(node.core, direction="backward", name=f"{node.core.name}.backward")
    mine = own_heads(core, context)
    if context.head_ranks > 1:
        _exchange_heads(core, context, output_bytes(core), out)
    if context.token_ranks == 1:
        out.compute(mine)
    elif context.method == "all-gather":
        _gather(mine, context, out)  # only a rank's own keys and values were kept
        _attend_gathered(mine, context, out)
        reorder = copy(f"{core.name}.reorder", kv_bytes(mine))
        out.compute(reorder)
        out.exposed(collective(core, "reduce_scatter", context.token_axis, kv_bytes(mine)))
    elif context.method == "torch-ring":
        torch_ring_backward(mine, context, out)
    else:
        ring_backward(mine, context, out)
    if context.head_ranks > 1:
        _exchange_heads(core, context, query_bytes(core) + kv_bytes(core, copies=context.head_ranks), out)


def _gathered(core: Attention) -> Tensor:
    """Everybody's keys and values, where a compiled graph keeps them for the backward pass."""
    return Tensor(name="kv.gathered", bytes=kv_bytes(core), region=Region.FEATURE, origin="core_attn")


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


def _exchange_heads(core: Attention, context: ContextParallel, size: float, out: SegmentBuilder) -> None:
    """Tokens of all heads for all tokens of some: an all-to-all between copies into and out of its order."""
    share = size / context.size
    out.compute(copy(f"{core.name}.pack", share))
    out.exposed(collective(core, "all_to_all", context.head_axis, share))
    out.compute(copy(f"{core.name}.unpack", share))


def _gather(core: Attention, context: ContextParallel, out: SegmentBuilder) -> None:
    """Everybody's keys and values, put into the order of the sequence."""
    out.exposed(collective(core, "all_gather", context.token_axis, kv_bytes(core)))
    out.compute(copy(f"{core.name}.reorder", kv_bytes(core)))
