"""Layers of expert, latent-attention and windowed models against closed forms and published figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.graph.decoder import decoder_layer, layer_kinds, model_layer, prediction_head, prediction_layer
from simulator.graph.ends import embedding, head
from simulator.graph.flops import find_convention
from simulator.graph.layer import LayerGraph
from simulator.graph.operators import Attention, Gemm, GroupedGemm, MemoryBound
from simulator.graph.options import GraphOptions
from simulator.graph.parameters import count_parameters
from simulator.spec import catalogue
from simulator.spec.load import load_model
from simulator.spec.model import ModelSpec

MODELS = catalogue.names("models")
COUNTED = [name for name in MODELS if not load_model(name).hybrid_layer_pattern]  # as their products are


def options(model: ModelSpec, batch: int = 1, seq: int = 4096) -> GraphOptions:
    decoder = seq // 4 if model.num_encoder_layers else 0
    return GraphOptions(batch=batch, seq=seq, decoder_seq=decoder, dtype="bf16", vocab_size=model.vocab_size)


def layers(model: ModelSpec, opts: GraphOptions) -> list[LayerGraph]:
    predictions = model.num_nextn_predict_layers
    return [
        embedding(model, opts),
        *(model_layer(model, opts, kind) for kind in layer_kinds(model)),
        *[prediction_layer(model, opts)] * predictions,
        head(model, opts),
        *[prediction_head(model, opts)] * predictions,
    ]


@pytest.mark.parametrize("name", MODELS)
def test_a_models_layers_hold_its_parameters(name: str) -> None:
    model = load_model(name)
    held = sum(layer.parameters for layer in layers(model, options(model)))
    if model.tie_word_embeddings:
        held -= model.vocab_size * model.hidden_size
    count = count_parameters(model)
    assert held == count.without_mtp + count.mtp


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("seq", [64, 4096])
def test_products_and_cores_add_up_to_megatrons_count(name: str, seq: int) -> None:
    """Megatron-LM counts three forwards of every product but the router's, and half the attention square."""
    model = load_model(name)
    if model.layers:
        seq = 1  # a sample is a sequence of one
    graphs = layers(model, options(model, seq=seq))
    nodes = [node for layer in graphs for node in layer.nodes if node.module != "moe.router"]
    products = sum(
        node.forward.flops for node in nodes if isinstance(node.forward, Gemm | GroupedGemm | Attention)
    )
    counted = find_convention("megatron").flops_per_step(
        model, seq_length=seq, decoder_seq_length=seq // 4, global_batch_size=1
    )
    assert 3 * products == pytest.approx(counted, rel=1e-9)


@pytest.mark.parametrize("name", ["deepseek-v3", "qwen3-30b-a3b", "gpt-oss-120b"])
def test_both_gradients_take_as_many_flops_as_two_forwards(name: str) -> None:
    model = load_model(name)
    layer = decoder_layer(model, options(model), layer_kinds(model)[-1])
    for node in layer.nodes:
        if isinstance(node.forward, Gemm | GroupedGemm):
            gradients = (*node.input_gradient, *node.weight_gradient)
            assert sum(op.flops for op in gradients) == 2 * node.forward.flops


def test_every_second_layer_of_gpt_oss_sees_a_window() -> None:
    model = load_model("gpt-oss-120b")
    windows = [kind.window for kind in layer_kinds(model)]
    assert windows == [128, 0] * 18


def test_deepseek_v3_has_three_dense_layers_and_58_of_experts() -> None:
    kinds = layer_kinds(load_model("deepseek-v3"))
    assert [kind.blocks for kind in kinds] == [("attention", "mlp")] * 3 + [("attention", "experts")] * 58


def test_deepseek_v3_prediction_module_has_14_billion_parameters_with_its_copies() -> None:
    """README of DeepSeek-V3: 14B, the shared embedding and head included."""
    model = load_model("deepseek-v3")
    shared = 2 * model.vocab_size * model.hidden_size
    own = prediction_layer(model, options(model)).parameters + model.hidden_size
    assert (own + shared) / 1e9 == pytest.approx(14, abs=0.6)


def test_latent_attention_gathers_latents_not_heads() -> None:
    """DeepSeek-V2, section 2.1: what is shared by all heads is 512 + 64 wide."""
    model = load_model("deepseek-v3")
    opts = options(model)
    layer = decoder_layer(model, opts, layer_kinds(model)[0])
    up = next(node for node in layer.nodes if node.forward.name == "kv_up")
    assert up.boundary_bytes == opts.tokens * (512 + 64) * 2


def test_rows_are_copies_of_tokens() -> None:
    model = load_model("qwen3-30b-a3b")
    opts = options(model, batch=2)
    layer = decoder_layer(model, opts, layer_kinds(model)[0])
    rows = [node.forward.rows for node in layer.nodes if isinstance(node.forward, GroupedGemm)]
    assert rows == [2 * 4096 * 8] * 2


def test_unfused_permutation_moves_more_bytes_in_more_kernels() -> None:
    model = load_model("mixtral-8x7b")
    fused, loose = (
        next(
            node.forward
            for node in decoder_layer(
                model, replace(options(model), permute_fusion=flag), layer_kinds(model)[0]
            ).nodes
            if node.forward.name == "permute"
        )
        for flag in (True, False)
    )
    assert isinstance(fused, MemoryBound)
    assert isinstance(loose, MemoryBound)
    assert fused.bytes < loose.bytes
    assert fused.kernels < loose.kernels


def test_latent_experts_work_in_their_latent_space() -> None:
    model = replace(load_model("mixtral-8x7b"), moe_latent_size=1024)
    layer = decoder_layer(model, options(model), layer_kinds(model)[0])
    names = {node.forward.name: node.forward for node in layer.nodes}
    fc1 = names["experts.fc1"]
    assert isinstance(fc1, GroupedGemm)
    assert fc1.k == 1024
    assert {"latent_down", "latent_up"} <= set(names)
