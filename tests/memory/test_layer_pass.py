"""The peak inside a layer, against tensors counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.memory.activations import Passes
from simulator.memory.layer_pass import layer_passes, placeholder_shapes
from simulator.partition.plan import plan_run
from simulator.partition.tensor import TensorParallel
from simulator.spec.run import RunSpec

MakeRun = Callable[..., RunSpec]
S, H, F, V = 2048, 1024, 4096, 16384
ONE = TensorParallel(size=1, sequence=False)


def llama(make_run: MakeRun, **fields: object) -> RunSpec:
    model = replace(
        make_run().model,
        gated_mlp=True,
        hidden_act="silu",
        norm="rmsnorm",
        linear_bias=False,
        position_embedding="rope",
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )
    return make_run(model=model, precision="bf16", **fields)


def test_backward_peak_of_a_dense_layer_is_at_the_gated_activation(make_run: MakeRun) -> None:
    """Gradients of the stream, of FC2's input and of both halves of FC1's output; FC2's input is gone."""
    layer = plan_run(llama(make_run)).chunks[0].layers[1]
    passes = layer_passes(layer.nodes, ONE, gradient_tensors=False)
    assert passes.backward_peak == 2 * S * (H + F + 2 * F - F)


def test_every_kept_tensor_dies_once(make_run: MakeRun) -> None:
    for layer in plan_run(llama(make_run, tp=2)).chunks[0].layers:
        passes = layer_passes(layer.nodes, TensorParallel(size=2, sequence=True), gradient_tensors=True)
        alive: set[str] = set()
        for name, size in (*passes.forward, *passes.backward[len(passes.kept) :]):
            (alive.add if size else alive.remove)(name)
        assert alive == set()


def test_head_backward_adds_logit_gradients_and_a_weight_gradient(make_run: MakeRun) -> None:
    """bf16 gradient beside the fp32 softmax, or beside the input's gradient and a dense weight gradient."""
    run = llama(make_run)
    head = plan_run(run).chunks[0].layers[-1]
    peaks = Passes(plan_run(run)).layer(head)
    with_weight = 2 * S * V + 2 * S * H + 2 * H * V - 4 * S * V  # the softmax has gone
    assert peaks.backward_peak == max(2 * S * V, with_weight)


def test_stand_ins_for_weight_gradients_are_one_per_shape(make_run: MakeRun) -> None:
    nodes = plan_run(llama(make_run)).chunks[0].layers[1].nodes
    assert sum(placeholder_shapes(nodes).values()) == 2 * (3 * H * H + H * H + 2 * F * H + F * H)
    apart = plan_run(llama(make_run, gradient_accumulation_fusion=False)).chunks[0].layers[1].nodes
    assert placeholder_shapes(apart) == {}


def test_sequence_parallel_gathers_inputs_for_a_moment(make_run: MakeRun) -> None:
    """The inputs of QKV and FC1, the partial sums of the projection and FC2: all of whole tokens."""
    run = llama(make_run, tp=4)
    layer = plan_run(run).chunks[0].layers[1]
    events = layer_passes(layer.nodes, plan_run(run).tensor, gradient_tensors=False).forward
    assert [size for name, size in events if name == "gathered" and size] == [2 * S * H] * 4


def test_zero_bubble_keeps_operands_of_weight_gradients_only(make_run: MakeRun) -> None:
    passes = Passes(plan_run(llama(make_run, pp=2))).chunk(0)
    assert passes.deferred > 0.0
    nodes = plan_run(llama(make_run)).chunks[0].layers[1].nodes
    operands = 2 * S * (H + H + H + F) + 2 * S * (3 * H + H + 2 * F + H)
    assert layer_passes(nodes, ONE, gradient_tensors=False).deferred == operands
