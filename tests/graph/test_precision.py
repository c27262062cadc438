"""Narrow precision changes formats and adds casts; it changes no FLOP, and casts move hand-counted bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.graph.decoder import layer_kinds, model_layer
from simulator.graph.ends import head
from simulator.graph.layer import LayerGraph
from simulator.graph.operators import Attention, Gemm
from simulator.graph.options import GraphOptions
from simulator.graph.precision import RECIPES, find_recipe, quantize, transpose
from simulator.graph.quantized import quantize_layer
from simulator.graph.transformer import dense_layer
from simulator.spec.load import load_model

LLAMA = load_model("llama3-8b")
OPTIONS = GraphOptions(batch=1, seq=8192, dtype="bf16", vocab_size=LLAMA.vocab_size)
LAYER = dense_layer(LLAMA, OPTIONS)


def formats(layer: LayerGraph) -> dict[str, str]:
    return {node.forward.name: getattr(node.forward, "dtype", "") for node in layer.nodes}


@pytest.mark.parametrize("name", RECIPES)
def test_flops_do_not_depend_on_the_precision(name: str) -> None:
    narrow = quantize_layer(LAYER, RECIPES[name])
    assert narrow.forward_flops == LAYER.forward_flops
    assert narrow.backward_flops == LAYER.backward_flops
    assert narrow.parameters == LAYER.parameters


@pytest.mark.parametrize("name", RECIPES)
def test_linear_products_are_narrow_and_the_rest_is_not(name: str) -> None:
    recipe = RECIPES[name]
    narrow = quantize_layer(LAYER, recipe)
    for node in narrow.nodes:
        ops = (node.forward, *node.input_gradient, *node.weight_gradient)
        assert {op.dtype for op in ops if isinstance(op, Gemm)} <= {recipe.dtype}
        assert {op.dtype for op in ops if isinstance(op, Attention)} <= {"bf16"}
    assert set(formats(quantize_layer(head(LLAMA, OPTIONS), recipe)).values()) <= {"bf16", ""}


def test_rows_of_experts_are_padded_and_trimmed() -> None:
    """Two copies of k·T rows each way; a dense layer has none."""
    model = load_model("mixtral-8x7b")
    layer = model_layer(model, OPTIONS, layer_kinds(model)[0])
    plain, padded = (quantize_layer(layer, RECIPES["mxfp8"], pad_rows=pads) for pads in (False, True))
    added = [n for n in padded.nodes if n.forward.name not in {m.forward.name for m in plain.nodes}]
    rows = 8192 * model.num_experts_per_tok * model.hidden_size * 2
    assert [n.forward.name for n in added] == ["experts.pad", "experts.unpad"]
    assert all(n.forward.bytes == n.input_gradient[0].bytes == 2 * rows for n in added)
    assert quantize_layer(LAYER, RECIPES["mxfp8"], pad_rows=True) == quantize_layer(LAYER, RECIPES["mxfp8"])


@given(elements=st.integers(1, 10**9))
@pytest.mark.parametrize(
    ("name", "copies", "read", "written", "kernels"),
    [
        ("delayed", 1, 2.0, 1.0, 1),
        ("delayed", 2, 2.0, 2.0, 1),  # one pass writes a tensor and its transpose
        ("current", 2, 4.0, 2.0, 2),  # the maximum of this tensor is found first
        ("blockwise", 2, 2.0, 2.0 + 2 * 4 / 128, 1),
        ("mxfp8", 2, 2.0, 2.0 + 2 / 32, 1),
        ("nvfp4", 2, 6.0, 1.0 + 2 / 16, 3),  # and each copy goes its own way
    ],
)
def test_bytes_of_a_cast_per_element(
    name: str, copies: int, read: float, written: float, kernels: int, elements: int
) -> None:
    ops = quantize("x", elements, RECIPES[name], copies=copies)
    assert (
        sum(op.kernels for op in ops if op.kind != "amax") + sum(op.kind == "amax" for op in ops) == kernels
    )
    assert sum(op.read_bytes for op in ops) == pytest.approx(read * elements)
    assert sum(op.write_bytes for op in ops) == pytest.approx(written * elements)
    turned = transpose("x", elements, RECIPES[name])
    assert turned.read_bytes == turned.write_bytes == RECIPES[name].element_bytes * elements


def test_blackwell_needs_one_copy_of_a_tensor_scaled_as_a_whole() -> None:
    hopper, blackwell = (find_recipe("fp8", "current", name) for name in ("hopper", "blackwell"))
    assert hopper is not None and hopper.copies == 2 and hopper.transposed
    assert blackwell is not None and blackwell.copies == 1 and not blackwell.transposed
    for name in ("mxfp8", "nvfp4"):  # blocks run along the reduction, which differs between the products
        recipe = find_recipe(name, "", "blackwell")
        assert recipe is not None and recipe.copies == 2


def test_sixteen_bits_and_more_have_no_recipe() -> None:
    assert all(find_recipe(name, "", "hopper") is None for name in ("fp32", "tf32", "fp16", "bf16"))


def test_a_norm_that_quantises_writes_half() -> None:
    norms = [node for node in LAYER.nodes if node.module == "layernorm"]
    fused = [n for n in quantize_layer(LAYER, RECIPES["delayed"]).nodes if n.module == "layernorm"]
    apart = [n for n in quantize_layer(LAYER, RECIPES["current"]).nodes if n.module == "layernorm"]
    off = quantize_layer(LAYER, RECIPES["delayed"], fuse_norm=False).nodes
    for before, after, same in zip(norms, fused, apart, strict=True):
        assert after.forward.bytes == pytest.approx(0.75 * before.forward.bytes)  # read 2 and write 2 → 1
        assert same.forward == before.forward
    assert not any(node.quantization and node.quantization.input_done for node in off)


def test_kept_inputs_take_a_byte_and_core_attention_keeps_its_own_output() -> None:
    def kept(layer: LayerGraph) -> dict[str, float]:
        return {tensor.name: tensor.bytes for node in layer.nodes for tensor in node.saves}

    wide, narrow = kept(LAYER), kept(quantize_layer(LAYER, RECIPES["delayed"]))
    for name in ("qkv.input", "fc1.input", "fc2.input"):
        assert narrow[f"{name}.fp8"] == wide[name] / 2
        assert name not in narrow
    assert narrow["proj.input"] == wide["proj.input"]  # flash attention's backward reads it in bf16
    assert narrow["proj.input.fp8"] == wide["proj.input"] / 2
    assert kept(quantize_layer(LAYER, RECIPES["torchao-rowwise"])) == wide


def test_attention_in_fp8_casts_its_inputs_and_keeps_a_byte_of_each() -> None:
    narrow = quantize_layer(LAYER, RECIPES["delayed"], attention=True)
    plain = quantize_layer(LAYER, RECIPES["delayed"])
    assert (narrow.forward_flops, narrow.backward_flops) == (plain.forward_flops, plain.backward_flops)
    (core,) = [node for node in narrow.nodes if isinstance(node.forward, Attention)]
    assert isinstance(core.forward, Attention) and core.forward.dtype == "fp8"
    (cast,) = [node.forward for node in narrow.nodes if node.forward.name == "core_attn.qkv.quantize"]
    width = (LLAMA.num_attention_heads + 2 * LLAMA.num_key_value_heads) * LLAMA.head_dim
    assert cast.bytes == 3 * OPTIONS.tokens * width
    gradient, backward = core.input_gradient
    assert gradient.bytes == 3 * OPTIONS.tokens * LLAMA.num_attention_heads * LLAMA.head_dim
    assert isinstance(backward, Attention) and backward.dtype == "fp8"
    sizes = {tensor.name: tensor.bytes for tensor in core.saves}
    assert sizes["q.fp8"] == OPTIONS.tokens * LLAMA.num_attention_heads * LLAMA.head_dim
    assert "q" not in sizes and "proj.input" in sizes
