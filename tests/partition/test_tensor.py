"""Tensor and sequence parallelism: nothing lost, nothing invented, and the traffic of the papers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.ends import embedding, head
from simulator.graph.flops import find_convention
from simulator.graph.layer import LayerGraph
from simulator.graph.operators import Collective, MemoryBound
from simulator.graph.options import GraphOptions
from simulator.graph.parameters import count_parameters
from simulator.graph.transformer import dense_layer
from simulator.partition.recompute import backward_segment, forward_segment, saved_bytes
from simulator.partition.segment import Segment
from simulator.partition.tensor import TensorParallel, shard
from simulator.spec.load import load_model
from simulator.spec.model import ModelSpec

NONE: frozenset[str] = frozenset()
MODELS = ["llama3-8b", "llama3.1-405b", "megatron-22b", "gpt3-175b"]


def options(model: ModelSpec, *, batch: int = 1, seq: int = 2048, flash: bool = True) -> GraphOptions:
    return GraphOptions(batch=batch, seq=seq, dtype="bf16", vocab_size=model.vocab_size, flash=flash)


def segments(layer: LayerGraph, tp: TensorParallel, *, full: bool = False) -> tuple[Segment, Segment]:
    nodes = tuple(shard(node, tp) for node in layer.nodes)
    return forward_segment(nodes, tp), backward_segment(nodes, tp, full=full, modules=NONE)


def traffic(segment: Segment) -> Counter[str]:
    total: Counter[str] = Counter()
    for step in segment.steps:
        if isinstance(step.op, Collective):
            total[step.op.kind] += 1
    return total


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(MODELS), t=st.sampled_from([1, 2, 4, 8]), sequence=st.booleans(), flash=st.booleans()
)
def test_flops_of_all_ranks_are_those_of_the_whole_layer(
    name: str, t: int, sequence: bool, flash: bool
) -> None:
    model = load_model(name)
    layer = dense_layer(model, options(model, flash=flash))
    forward, backward = segments(layer, TensorParallel(size=t, sequence=sequence and t > 1))
    assert t * forward.flops == pytest.approx(layer.forward_flops, rel=1e-12)
    assert t * backward.flops == pytest.approx(layer.backward_flops, rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_computes_what_the_megatron_counter_counts(name: str) -> None:
    """Linear layers and logits 3×, attention core 3×; flash attention computes half a core more."""
    model = load_model(name)
    opts = options(model, seq=4096)
    layer, ends = dense_layer(model, opts), head(model, opts)
    core = next(node.forward.flops for node in layer.nodes if node.module == "core_attn")
    ours = model.num_hidden_layers * (layer.forward_flops + layer.backward_flops - 0.5 * core)
    ours += ends.forward_flops + ends.backward_flops
    counter = find_convention("megatron").flops_per_step(model, seq_length=4096, global_batch_size=1)
    assert ours == pytest.approx(counter, rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_layers_hold_the_parameters_of_the_closed_form(name: str) -> None:
    model = load_model(name)
    opts = options(model)
    ours = model.num_hidden_layers * dense_layer(model, opts).parameters + embedding(model, opts).parameters
    last = head(model, opts)
    tied = model.vocab_size * model.hidden_size if model.tie_word_embeddings else 0
    assert ours + last.parameters - tied == pytest.approx(count_parameters(model).total, rel=1e-12)


def test_collectives_of_a_layer_follow_megatron() -> None:
    """With SP 2 AG + 2 RS forward and 4 AG + 2 RS backward; without 2 AR each way (Korthikanti 2022)."""
    model = load_model("llama3-8b")
    layer = dense_layer(model, options(model))
    forward, backward = segments(layer, TensorParallel(size=4, sequence=True))
    assert traffic(forward) == {"all_gather": 2, "reduce_scatter": 2}
    assert traffic(backward) == {"all_gather": 4, "reduce_scatter": 2}
    forward, backward = segments(layer, TensorParallel(size=4, sequence=False))
    assert traffic(forward) == traffic(backward) == {"all_reduce": 2}
    for segment in (forward, backward):
        for step in segment.steps:
            if isinstance(step.op, Collective):
                assert step.op.size_bytes == 2048 * model.hidden_size * 2


@pytest.mark.parametrize(("t", "copied"), [(1, True), (4, True), (8, False)])
def test_queries_of_one_group_need_no_copy(t: int, copied: bool) -> None:
    """Llama-3 8B has 8 key heads: with TP 8 a rank's queries are one view."""
    model = load_model("llama3-8b")
    forward, _ = segments(dense_layer(model, options(model)), TensorParallel(size=t, sequence=True))
    (op,) = (step.op for step in forward.steps if step.op.name == "q_split")
    assert isinstance(op, MemoryBound)
    assert op.bytes == (2048 * 4096 * 4 / t if copied else 0) and op.kernels == copied


def test_tokens_behind_the_batch_are_copied_around_each_collective() -> None:
    """Four collectives forward and six backward (Korthikanti 2022), a copy of the whole activation each."""
    model = load_model("llama3-8b")
    layer = dense_layer(model, options(model))
    tokens_first, batch_first = (
        segments(layer, TensorParallel(size=8, sequence=True, batch_first=batch_first))
        for batch_first in (False, True)
    )
    for usual, copying, collectives in zip(tokens_first, batch_first, (4, 6), strict=True):
        assert sum(traffic(usual).values()) == sum(traffic(copying).values()) == collectives
        added = [step.op for step in copying.steps if step.op.name.endswith(".reorder")]
        size = 2048 * model.hidden_size * 2
        assert [(op.read_bytes, op.write_bytes) for op in added] == [(size, size)] * collectives
        assert len(copying.steps) == len(usual.steps) + collectives
    whole = segments(layer, TensorParallel(size=8, sequence=False, batch_first=True))
    assert whole == segments(layer, TensorParallel(size=8, sequence=False))


def test_the_loss_is_reduced_by_tokens_never_by_logits() -> None:
    model = load_model("llama3-8b")
    forward, _ = segments(head(model, options(model)), TensorParallel(size=8, sequence=True))
    sizes = [
        s.op.size_bytes for s in forward.steps if isinstance(s.op, Collective) and s.op.kind == "all_reduce"
    ]
    assert sizes == [2048 * 4.0] * 3


def test_full_recompute_repeats_the_forward_pass() -> None:
    model = load_model("megatron-22b")
    layer = dense_layer(model, options(model, flash=False))
    tp = TensorParallel(size=8, sequence=False)
    forward, backward = segments(layer, tp)
    _, recomputed = segments(layer, tp, full=True)
    assert recomputed.flops == pytest.approx(backward.flops + forward.flops)
    assert traffic(recomputed) == traffic(backward) + traffic(forward)


@pytest.mark.parametrize("t", [1, 2, 8])
@pytest.mark.parametrize("sequence", [False, True])
def test_saved_activations_are_korthikantis_formulas(t: int, sequence: bool) -> None:
    """s·b·h·(10 + 24/t + 5as/(ht)), with SP all of it over t (Korthikanti 2022, equations 2 and 4)."""
    model = load_model("megatron-22b")
    b, s, h, a = 2, 2048, model.hidden_size, model.num_attention_heads
    layer = dense_layer(model, options(model, batch=b, flash=False))
    sequence = sequence and t > 1
    tp = TensorParallel(size=t, sequence=sequence)
    nodes = tuple(shard(node, tp) for node in layer.nodes)
    core = 5 * a * s / (h * t)
    linear = 34 / t if sequence else 10 + 24 / t
    assert saved_bytes(layer, nodes, tp, full=False, modules=NONE) == pytest.approx(
        s * b * h * (linear + core)
    )
    selective = saved_bytes(layer, nodes, tp, full=False, modules=frozenset({"core_attn"}))
    assert selective == pytest.approx(s * b * h * linear)
    full = saved_bytes(layer, nodes, tp, full=True, modules=NONE)
    assert full == pytest.approx(2 * s * b * h / (t if sequence else 1))
