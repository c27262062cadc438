"""Where operands are quantised on a rank, what is gathered, and what is turned after a gather."""

from __future__ import annotations

import pytest

from simulator.graph.operators import Collective, MemoryBound
from simulator.graph.options import GraphOptions
from simulator.graph.precision import RECIPES
from simulator.graph.quantized import quantize_layer
from simulator.graph.transformer import dense_layer
from simulator.partition.quantization import cached_weight_bytes, weight_preparation
from simulator.partition.recompute import backward_segment, forward_segment
from simulator.partition.segment import Segment
from simulator.partition.tensor import TensorParallel, shard
from simulator.spec.load import load_model

MODEL = load_model("llama3-8b")
TOKENS = 8192
OPTIONS = GraphOptions(batch=1, seq=TOKENS, dtype="bf16", vocab_size=MODEL.vocab_size)
H, F = MODEL.hidden_size, MODEL.intermediate_size
QKV = (MODEL.num_attention_heads + 2 * MODEL.num_key_value_heads) * MODEL.head_dim
SPLIT = TensorParallel(size=4, sequence=True)
ALONE = TensorParallel(size=1, sequence=False)


def passes(recipe: str, tp: TensorParallel, *, fuse_norm: bool = True) -> tuple[Segment, Segment]:
    layer = quantize_layer(dense_layer(MODEL, OPTIONS), RECIPES[recipe], fuse_norm=fuse_norm)
    nodes = tuple(shard(node, tp) for node in layer.nodes)
    none: frozenset[str] = frozenset()
    return forward_segment(nodes, tp), backward_segment(nodes, tp, full=False, modules=none)


def casts(segment: Segment, kind: str) -> float:
    """Bytes moved by kernels of a kind."""
    return sum(s.op.bytes for s in segment.steps if isinstance(s.op, MemoryBound) and s.op.kind == kind)


def moved(segment: Segment, kind: str) -> float:
    return sum(s.op.size_bytes for s in segment.steps if isinstance(s.op, Collective) and s.op.kind == kind)


def test_delayed_scaling_on_one_rank() -> None:
    """Read 2, write 1 and a transposed 1 for every input and every output gradient."""
    forward, backward = passes("delayed", ALONE, fuse_norm=False)
    inputs = TOKENS * (H + H + H + F)  # of qkv, proj, fc1, fc2
    gradients = TOKENS * (QKV + H + 2 * F + H)
    assert casts(forward, "quantize") == pytest.approx(4 * inputs)
    assert casts(backward, "quantize") == pytest.approx(4 * gradients)
    assert casts(forward, "transpose") == casts(backward, "transpose") == 0.0


def test_a_fused_norm_leaves_the_transposes() -> None:
    forward, _ = passes("delayed", ALONE)
    assert casts(forward, "quantize") == pytest.approx(4 * TOKENS * (H + F))
    assert casts(forward, "transpose") == pytest.approx(2 * TOKENS * 2 * H)


def test_gathers_move_the_narrow_format_and_scatters_sixteen_bits() -> None:
    forward, backward = passes("delayed", SPLIT)
    assert moved(forward, "all_gather") == 2 * TOKENS * H * 1.0
    assert moved(backward, "all_gather") == 4 * TOKENS * H * 1.0
    assert moved(forward, "reduce_scatter") == 2 * TOKENS * H * 2.0
    assert moved(backward, "reduce_scatter") == 2 * TOKENS * H * 2.0


def test_block_scaled_gradients_are_gathered_in_both_copies() -> None:
    one = TOKENS * H * (1 + 1 / 32)
    forward, backward = passes("mxfp8", SPLIT)
    assert moved(forward, "all_gather") == pytest.approx(2 * one)
    assert moved(backward, "all_gather") == pytest.approx(2 * one + 2 * 2 * one)


def test_gathered_operands_are_turned_after_the_gather() -> None:
    """Hopper: the two inputs kept split, and the two output gradients that come split, T·h each."""
    forward, backward = passes("delayed", SPLIT)
    assert casts(forward, "transpose") == 0.0
    assert casts(backward, "transpose") == pytest.approx(4 * 2 * TOKENS * H)


def test_current_scaling_agrees_on_the_maximum_of_split_tensors() -> None:
    forward, backward = passes("current", SPLIT)
    assert moved(forward, "all_reduce") == 2 * 4.0
    assert moved(backward, "all_reduce") == 2 * 4.0
    assert moved(passes("delayed", SPLIT)[0], "all_reduce") == 0.0


def test_weights_are_quantised_once_a_step() -> None:
    recipe = RECIPES["delayed"]
    layer = quantize_layer(dense_layer(MODEL, OPTIONS), recipe)
    nodes = [shard(node, SPLIT) for node in layer.nodes]
    weights = (H * QKV + H * H + 3 * H * F) / 4
    made = sum(op.bytes for node in nodes for op in weight_preparation(node, only_copy=False))
    turned = sum(op.bytes for node in nodes for op in weight_preparation(node, only_copy=True))
    assert made == pytest.approx((2 + 1 + 1) * weights)
    assert turned == pytest.approx((1 + 1) * weights)
    assert cached_weight_bytes(recipe) == 2.0
    assert cached_weight_bytes(RECIPES["torchao-rowwise"]) == 0.0


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tp", [ALONE, SPLIT, TensorParallel(size=4, sequence=False)])
def test_flops_of_a_rank_do_not_depend_on_the_recipe(recipe: str, tp: TensorParallel) -> None:
    nodes = tuple(shard(node, tp) for node in dense_layer(MODEL, OPTIONS).nodes)
    wide = forward_segment(nodes, tp), backward_segment(nodes, tp, full=False, modules=frozenset())
    assert [s.flops for s in passes(recipe, tp)] == [s.flops for s in wide]
