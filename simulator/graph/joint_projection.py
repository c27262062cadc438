"""Queries, keys and values of one product: which copies it takes to have them apart, and joined again.

Megatron-LM's joint projection lays queries, keys and values side by side, group by group of query heads, and
splits them as views (`SelfAttention.get_query_key_value_tensors`). What cannot work on a view copies it; the
gradients of the parts come apart, and a copy joins them.
"""

from __future__ import annotations

from simulator.graph.fusion import fused
from simulator.graph.layer import Node, Region, elementwise
from simulator.graph.options import GraphOptions
from simulator.spec.model import ModelSpec

ACTIVATION_BYTES = 2.0


def parts(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """What runs between the joint projection and the first work on its parts."""
    if opts.fusion.views:
        return _copied_views(model, opts) if opts.flash else ()
    return _joined_gradient(model, opts)


def _joined_gradient(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Backward of a split joint projection: dQ, dK and dV side by side."""
    if opts.fusion.qkv_join is None:
        return ()
    elements = float(opts.tokens * _heads(model) * model.head_dim)
    join = fused("qkv_join", opts.fusion.qkv_join, elements, module="attention", region=Region.FEATURE)
    return (join,)


def _copied_views(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Copies of the parts and the join of their gradients, around a fused core.

    Queries of several groups with more than one head each are no view any more once they lie head by head
    (`reshape`). A norm of keys takes its input whole. Once keys have been made anew, by a norm or a rotation,
    values lie otherwise than they do, and the core takes a copy (`get_qkv_layout` of Transformer Engine,
    remembered and not read). Nothing is copied where queries, keys and values are views to the end: without
    groups, norm and rotation.
    """
    grouped = model.num_attention_heads > model.num_key_value_heads
    remade = model.qk_norm or model.position_embedding == "rope"
    if not (grouped or remade):
        return ()
    head = opts.tokens * model.head_dim * ACTIVATION_BYTES
    queries = model.num_attention_heads * head
    copies = int(remade) + int(model.qk_norm)
    keys_values = copies * model.num_key_value_heads * head
    whole = _heads(model) * head
    split = elementwise(
        "qkv_split",
        "copy",
        module="attention",
        region=Region.FEATURE,
        forward=(keys_values, keys_values),
        backward=(whole, whole),
        kernels=(copies, 1),
    )
    if not grouped:
        return (split,)
    gathered = elementwise(
        "q_split",
        "copy",
        module="attention",
        region=Region.FEATURE,
        forward=(queries, queries),
        backward=None,
        groups=model.num_key_value_heads,
    )
    return (split, gathered)


def _heads(model: ModelSpec) -> int:
    return model.num_attention_heads + 2 * model.num_key_value_heads
