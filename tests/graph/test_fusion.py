"""Bytes and kernels of memory-bound work, counted by hand for each software stack."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.graph.decoder import decoder_layer, layer_kinds
from simulator.graph.ends import head
from simulator.graph.fusion import STACKS
from simulator.graph.layer import LayerGraph
from simulator.graph.operators import MemoryBound
from simulator.graph.options import GraphOptions
from simulator.spec.load import load_model
from simulator.spec.model import ModelSpec

GPT, LLAMA = load_model("mpt-7b"), load_model("llama3-8b")
TOKENS = 2048


def layer(model: ModelSpec, stack: str, **changes: object) -> LayerGraph:
    opts = GraphOptions(batch=1, seq=TOKENS, dtype="bf16", vocab_size=model.vocab_size, stack=stack)
    return decoder_layer(model, replace(opts, **changes), layer_kinds(model)[0])  # type: ignore[arg-type]


def loss(model: ModelSpec, stack: str, **changes: object) -> tuple[float, float]:
    """Bytes per logit, forward and backward."""
    opts = GraphOptions(batch=1, seq=TOKENS, dtype="bf16", vocab_size=model.vocab_size, stack=stack)
    graph = head(model, replace(opts, **changes))  # type: ignore[arg-type]
    logits = TOKENS * model.vocab_size
    return forward(graph)["cross_entropy"] / logits, backward(graph)["cross_entropy"] / logits


def forward(graph: LayerGraph) -> dict[str, float]:
    return {node.forward.name: node.forward.bytes for node in graph.nodes if memory_bound(node.forward)}


def backward(graph: LayerGraph) -> dict[str, float]:
    return {
        node.forward.name: sum(op.bytes for op in node.input_gradient)
        for node in graph.nodes
        if memory_bound(node.forward)
    }


def memory_bound(op: object) -> bool:
    return isinstance(op, MemoryBound)


def kernels(graph: LayerGraph) -> int:
    ops = [op for node in graph.nodes for op in (node.forward, *node.input_gradient)]
    return sum(op.kernels for op in ops if isinstance(op, MemoryBound))


def test_a_gpt_layer_of_fused_kernels() -> None:
    """Per hidden element. Norms: x, y; dy, x, dx. Residuals: two in, one out, both ways. GELU on 4h."""
    graph, unit = layer(GPT, "megatron"), TOKENS * GPT.hidden_size
    assert sum(forward(graph).values()) / unit == 2 * 4 + 2 * 6 + 4 * 4
    assert sum(backward(graph).values()) / unit == 2 * 6 + 2 * 6 + 4 * 6


def test_a_gpt_layer_of_eager_kernels() -> None:
    """Norms read dy and x again for the weights' gradient; dQ, dK and dV (3h) are put side by side."""
    graph, unit = layer(GPT, "eager"), TOKENS * GPT.hidden_size
    assert sum(forward(graph).values()) / unit == 2 * 4 + 2 * 6 + 4 * 4
    assert sum(backward(graph).values()) / unit == 2 * 10 + 2 * 6 + 4 * 6 + 3 * 4


def test_an_eager_rms_norm_works_in_fp32_operator_by_operator() -> None:
    """Cast, square, mean, scale, weight, cast: 6 + 8 + 4 + 8 + 8 + 6 bytes; the fused one 4."""
    unit = TOKENS * LLAMA.hidden_size
    assert forward(layer(LLAMA, "eager"))["input_norm"] / unit == 40
    assert forward(layer(LLAMA, "megatron"))["input_norm"] / unit == 4


def test_an_eager_gate_writes_the_activation_first() -> None:
    """SiLU (2 + 2) and product (4 + 2) against one kernel (4 + 2); backward three kernels of 6 against 10."""
    unit = TOKENS * LLAMA.intermediate_size
    eager, fused = layer(LLAMA, "eager"), layer(LLAMA, "megatron")
    assert (forward(eager)["activation"] / unit, forward(fused)["activation"] / unit) == (10, 6)
    assert (backward(eager)["activation"] / unit, backward(fused)["activation"] / unit) == (18, 10)


def test_an_eager_rotation_casts_to_fp32_and_back() -> None:
    heads = LLAMA.num_attention_heads + LLAMA.num_key_value_heads
    unit = TOKENS * heads * LLAMA.head_dim
    assert forward(layer(LLAMA, "eager"))["rope"] / unit == 6 + 8 + 6
    assert forward(layer(LLAMA, "megatron"))["rope"] / unit == 4


def test_a_scaled_rotation_takes_its_operators_one_by_one() -> None:
    """Products, sums and joins over Q and K: 4 + 2 + 4 + 4 + 6 + 4 bytes instead of 4."""
    heads = LLAMA.num_attention_heads + LLAMA.num_key_value_heads
    unit = TOKENS * heads * LLAMA.head_dim
    scaled = replace(LLAMA, yarn=True)
    assert forward(layer(scaled, "megatron"))["rope"] / unit == 24
    assert backward(layer(scaled, "megatron"))["rope"] / unit == 24
    assert forward(layer(scaled, "compiled"))["rope"] == forward(layer(LLAMA, "compiled"))["rope"]


def test_a_bounded_gate_is_cut_half_by_half_and_joined() -> None:
    """Per inner element of a row: two cuts of 4 bytes and a join of 8.

    Backward: a comparison of 3 and a choice of 5; three comparisons and a choice; the join.
    """
    model = load_model("gpt-oss-120b")
    graph = layer(model, "megatron")
    unit = TOKENS * model.num_experts_per_tok * model.moe_intermediate_size
    assert forward(graph)["experts.clamp"] / unit == 16
    assert backward(graph)["experts.clamp"] / unit == (3 + 5) + (3 * 3 + 5) + 8
    assert "experts.clamp" not in forward(layer(replace(model, swiglu_limit=0.0), "megatron"))


def test_parts_of_a_joint_projection_are_copied_where_no_view_will_do() -> None:
    """Llama-3 8B, 32 heads on 8: values copied, queries copied, three gradients joined; 4 bytes an element.

    A norm of keys takes a copy too; without groups queries stay views; without a rotation values do.
    """
    unit = TOKENS * LLAMA.head_dim * 4
    grouped = layer(LLAMA, "megatron")
    assert (forward(grouped)["qkv_split"], backward(grouped)["qkv_split"]) == (8 * unit, 48 * unit)
    assert forward(grouped)["q_split"] == 32 * unit
    assert forward(layer(replace(LLAMA, qk_norm=True), "megatron"))["qkv_split"] == 16 * unit
    alone = forward(layer(replace(LLAMA, num_key_value_heads=32), "megatron"))
    assert alone["qkv_split"] == 32 * unit and "q_split" not in alone
    still = layer(replace(LLAMA, position_embedding="none"), "megatron")
    assert (forward(still)["qkv_split"], backward(still)["qkv_split"]) == (0, 48 * unit)
    assert "qkv_split" not in forward(layer(GPT, "megatron"))
    assert "qkv_split" not in forward(layer(LLAMA, "megatron", flash=False))
    assert "qkv_split" not in forward(layer(LLAMA, "compiled"))


def test_biases_of_experts_are_added_and_their_gradients_summed_expert_by_expert() -> None:
    """Per element of FC2's output, as listed at `_output_bias`; FC1's biases come with its product."""
    model = load_model("gpt-oss-120b")
    graph = layer(model, "megatron")
    unit = TOKENS * model.num_experts_per_tok * model.hidden_size
    assert forward(graph)["experts.output_bias"] / unit == 4 + (6 + 4) + 8 + 6
    assert backward(graph)["experts.output_bias"] / unit == 6 + 6 + 4 + (8 + 4) + (8 + 4)
    added = [op for node in graph.nodes for op in node.weight_gradient if op.name.startswith("experts")]
    biases = [op for op in added if isinstance(op, MemoryBound)]
    assert [(op.name, op.kernels) for op in biases] == [("experts.fc1.bias_grad", model.num_experts)]


@pytest.mark.parametrize(("gated", "expected"), [(True, 6 + (6 + 4)), (False, 4 + 2)])
def test_gradients_of_probabilities_read_a_gated_activation_again(gated: bool, expected: int) -> None:
    """Per inner element: a sum over gradient and input, then both again for the input's; without a gate one
    kernel does both. Probabilities are 4 bytes a row, as often.
    """
    model = replace(load_model("mixtral-8x7b"), gated_mlp=gated)
    rows = TOKENS * model.num_experts_per_tok
    (node,) = (n for n in layer(model, "megatron").nodes if n.forward.name == "experts.activation")
    (op,) = node.input_gradient
    assert isinstance(op, MemoryBound) and op.kernels == 1 + gated
    width = model.moe_intermediate_size or model.intermediate_size
    assert op.bytes == rows * (width * expected + 4 * (2 + gated))


def test_pytorch_copies_keys_and_values_to_their_query_heads() -> None:
    """Llama-3 8B: K and V of 8 heads read, of 32 written."""
    copied = forward(layer(LLAMA, "compiled"))["repeat_kv"]
    assert copied == TOKENS * LLAMA.head_dim * 2 * (8 + 32) * 2
    assert "repeat_kv" not in forward(layer(LLAMA, "megatron"))
    assert "repeat_kv" not in forward(layer(GPT, "eager"))


def test_the_loss_by_stack() -> None:
    """Megatron: 38 and 14 bytes per logit. Eager: cast 6, log-softmax 16; zeros 4, gradient 16, cast 6."""
    assert loss(GPT, "megatron") == (38, 14)
    assert loss(GPT, "eager") == (22, 26)
    assert loss(GPT, "compiled") == (4, 4)


def test_a_fused_loss_by_stack() -> None:
    """PyTorch's read bf16 logits twice, then once; Megatron's native one makes fp32 ones in three passes."""
    assert loss(GPT, "eager", loss_fusion="native") == loss(GPT, "compiled", loss_fusion="native") == (4, 4)
    assert loss(GPT, "megatron", loss_fusion="native") == (22, 6)


def test_transformer_engines_loss_leaves_the_gradient_in_place_of_the_logits() -> None:
    """One pass reads, one reads and writes; the backward scales: 6 and 4 bytes per logit."""
    assert loss(GPT, "megatron", loss_fusion="te") == (6, 4)


@pytest.mark.parametrize("model", [GPT, LLAMA], ids=lambda model: model.name)
@pytest.mark.parametrize("flash", [True, False])
def test_products_do_not_depend_on_the_stack(model: ModelSpec, flash: bool) -> None:
    graphs = [layer(model, stack, flash=flash) for stack in STACKS]
    assert len({graph.forward_flops for graph in graphs}) == 1
    assert len({graph.backward_flops for graph in graphs}) == 1
    assert len({graph.parameters for graph in graphs}) == 1


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("model", [GPT, LLAMA], ids=lambda model: model.name)
def test_eager_code_moves_most_in_most_kernels(model: ModelSpec, dropout: float, flash: bool) -> None:
    model = replace(model, hidden_dropout=dropout, attention_dropout=dropout)
    graphs = {stack: layer(model, stack, flash=flash) for stack in STACKS}
    moved = {
        stack: sum(forward(graph).values()) + sum(backward(graph).values()) for stack, graph in graphs.items()
    }
    assert moved["eager"] > moved["compiled"] >= moved["megatron"]
    assert kernels(graphs["eager"]) > kernels(graphs["compiled"])


def test_eager_autograd_keeps_more() -> None:
    """RMS norm: x and its normalised row in fp32 instead of x in bf16; SiLU's result beside gate and up.

    Both PyTorch stacks keep keys and values as attention reads them: copied to every query's head.
    """

    def kept(stack: str) -> float:
        return sum(tensor.bytes for node in layer(LLAMA, stack).nodes for tensor in node.saves)

    more = 2 * 6 * TOKENS * LLAMA.hidden_size + 2 * TOKENS * LLAMA.intermediate_size
    copies = LLAMA.num_attention_heads - LLAMA.num_key_value_heads
    repeated = 2 * 2 * TOKENS * copies * LLAMA.head_dim
    assert kept("eager") - kept("megatron") == more + repeated
    assert kept("compiled") - kept("megatron") == repeated
