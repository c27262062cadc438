"""Plain operator graphs: shapes, parameters and FLOPs as published, and nothing lost between layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.graph.decoder import layer_kinds, model_layer
from simulator.graph.operator_graph import graph_forward_flops, graph_layers, graph_parameters
from simulator.graph.operators import Gemm, ImplicitGemm
from simulator.graph.options import GraphOptions
from simulator.spec.errors import SpecError
from simulator.spec.load import load_model
from simulator.spec.operator_graph import GraphLayer, GraphOperator, Shape

RESIDUAL = GraphLayer(
    name="residual",
    operators=(
        GraphOperator(op="conv2d", name="a", channels=8, kernel=(3, 3), padding=(1, 1), bias=False),
        GraphOperator(op="batch_norm"),
        GraphOperator(op="activation", name="b"),
        GraphOperator(op="add", inputs=("b", "input")),
    ),
)


@pytest.mark.parametrize(
    ("name", "millions", "multiplications"),
    [
        ("alexnet", 60.97, 0.7244e9),  # with groups, as on two GPUs
        (
            "vgg-16",
            138.36,
            15.47e9,
        ),  # Simonyan and Zisserman 2015: 138M; He et al. 2016: 15.3e9 without the dense layers
    ],
)
def test_parameters_and_multiplications_are_the_published_ones(
    name: str, millions: float, multiplications: float
) -> None:
    model = load_model(name)
    assert graph_parameters(model) / 1e6 == pytest.approx(millions, rel=1e-3)
    assert graph_forward_flops(model) / 2 == pytest.approx(multiplications, rel=1e-3)


def test_shapes_follow_from_the_sample() -> None:
    layers = graph_layers(load_model("alexnet"))
    assert [str(placed.entering) for placed in layers] == [
        *("3×224×224", "96×27×27", "256×13×13", "384×13×13", "384×13×13", "256×6×6", "4096×1×1", "4096×1×1")
    ]


def test_a_convolution_reads_its_image_once_though_its_product_is_larger() -> None:
    """3×3 convolutions unfold an image nine times (but for its edge); memory holds it once."""
    layer = model_layer(load_model("vgg-16"), options(), layer_kinds(load_model("vgg-16"))[1])
    forward = layer.nodes[0].forward
    assert isinstance(forward, ImplicitGemm)
    image = 4 * 64 * 224 * 224
    assert forward.m * forward.k == 9 * image
    assert forward.bytes == 2.0 * (image + 64 * 64 * 9 + image)


def test_gradients_take_two_forwards_but_for_the_first_layer() -> None:
    model = load_model("alexnet")
    first, *rest = (model_layer(model, options(), kind) for kind in layer_kinds(model))
    assert all(layer.backward_flops == 2 * layer.forward_flops for layer in rest)
    assert first.backward_flops == first.forward_flops  # nobody needs the gradient of an image


def test_gradients_of_a_fork_are_added() -> None:
    ((*_, placed),) = [graph_layers(load_model("amoebanet-d-18-256"))]
    layer = GraphLayer(name="two", repeat=1, operators=RESIDUAL.operators)
    nodes = model_layer(
        load_model("alexnet"), options(), placed._replace(layer=layer, entering=Shape(8, 4, 4))
    ).nodes
    assert nodes[0].forward.bytes == 0
    (total,) = nodes[0].input_gradient
    assert total.bytes == 3 * 4 * 8 * 4 * 4 * 2


def options() -> GraphOptions:
    return GraphOptions(batch=4, seq=1, dtype="fp16", vocab_size=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("{op: conv2d, channels: 4}", "needs a kernel"),
        ("{op: conv2d, channels: 4, kernel: 9}", "larger than its input"),
        ("{op: conv2d, channels: 4, kernel: 3, groups: 2}", "groups 2 must divide 3 and 4 channels"),
        ("{op: gemm}", "needs channels"),
        ("{op: add, inputs: [input, nowhere]}", "no earlier operator is"),
        ("{op: conv3d}", "must be one of conv2d"),
        ("{op: gemm, channels: 4, kernel: [3]}", "list of two"),
    ],
)
def test_an_impossible_operator_is_refused_by_name(tmp_path: Path, change: str, said: str) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(f"name: x\nsample: [3, 8, 8]\nlayers:\n  - {{name: one, operators: [{change}]}}\n")
    with pytest.raises(SpecError, match=said):
        load_model(file)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("name: x\nsample: [3, 8]\n", "sample"),
        ("name: x\nsample: [3, 8, 8]\nhidden_size: 8\n", "hidden_size"),
    ],
)
def test_a_graph_has_a_sample_and_no_sizes_of_transformers(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "model.yaml"
    file.write_text(text + "layers:\n  - {name: one, operators: [{op: gemm, channels: 4}]}\n")
    with pytest.raises(SpecError) as caught:
        load_model(file)
    assert [problem.key_path for problem in caught.value.problems] == [key]


def test_every_product_of_a_dense_layer_is_a_gemm() -> None:
    model = load_model("alexnet")
    layer = model_layer(model, options(), layer_kinds(model)[-1])
    assert isinstance(layer.nodes[0].forward, Gemm)
    assert (layer.nodes[0].forward.m, layer.nodes[0].forward.n, layer.nodes[0].forward.k) == (4, 1000, 4096)
