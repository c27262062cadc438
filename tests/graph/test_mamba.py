"""Mamba-2 layers: the scan costs the same for every token, and tensor parallelism loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.decoder import decoder_layer, layer_kinds
from simulator.graph.layer import LayerGraph
from simulator.graph.operators import Collective, Gemm
from simulator.graph.options import GraphOptions
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import plan_run
from simulator.partition.tensor import TensorParallel, shard
from simulator.spec.errors import SpecError
from simulator.spec.load import load_model, load_run

HYBRIDS = ["nemotron-h-56b", "nemotron-3-nano-30b-a3b"]


def mixer(name: str, tokens: int) -> LayerGraph:
    model = load_model(name)
    opts = GraphOptions(batch=1, seq=tokens, dtype="bf16", vocab_size=model.vocab_size)
    return decoder_layer(model, opts, layer_kinds(model)[0])


def products(layer: LayerGraph) -> dict[str, float]:
    return {n.forward.name: n.forward.flops for n in layer.nodes if isinstance(n.forward, Gemm)}


@pytest.mark.parametrize("name", HYBRIDS)
def test_the_scan_takes_the_flops_of_its_chunks(name: str) -> None:
    """Dao and Gu 2024 (arXiv 2405.21060), section 6: chunks of Q, states of N, heads of P."""
    m, tokens = load_model(name), 8192
    q, n, p, heads = m.chunk_size, m.ssm_state_size, m.mamba_head_dim, m.mamba_num_heads
    inner = heads * p
    assert products(mixer(name, tokens)) == {
        "mamba_in": 2.0 * tokens * m.hidden_size * (2 * inner + 2 * m.mamba_n_groups * n + heads),
        "ssd.state": 2.0 * tokens * heads * p * n,
        "ssd.cb": 2.0 * tokens * q * m.mamba_n_groups * n,
        "ssd.scan": 2.0 * tokens * heads * p * (q + n),
        "mamba_out": 2.0 * tokens * inner * m.hidden_size,
    }


@pytest.mark.parametrize("name", HYBRIDS)
def test_time_grows_in_proportion_to_the_sequence(name: str) -> None:
    assert mixer(name, 65536).forward_flops == 8 * mixer(name, 8192).forward_flops


@settings(max_examples=10, deadline=None)
@given(name=st.sampled_from(HYBRIDS), t=st.sampled_from([2, 4, 8]))
def test_ranks_share_heads_and_groups(name: str, t: int) -> None:
    layer, tp = mixer(name, 4096), TensorParallel(size=t, sequence=True)
    nodes = [shard(node, tp) for node in layer.nodes]
    assert t * sum(node.forward.flops for node in nodes) == layer.forward_flops
    gradients = sum(op.flops for n in nodes for op in (*n.input_gradient, *n.weight_gradient))
    assert t * gradients == layer.backward_flops


def test_groups_bound_tensor_parallelism_and_chunks_the_sequence() -> None:
    settings = ["model=nemotron-h-56b", "gpus=16", "parallelism={tp: 16}", "training.seq_length=8200"]
    with pytest.raises(SpecError) as caught:
        load_run("llama3-8b-8-h100", settings)
    rules = {problem.key_path: problem.rule for problem in caught.value.problems}
    assert "mamba_n_groups" in rules["parallelism.tp"]
    assert "chunk_size" in rules["training.seq_length"]


@pytest.mark.parametrize(("tp", "cp"), [(1, 2), (1, 8), (2, 4)])
def test_context_parallel_ranks_trade_tokens_for_heads_around_the_scan(tp: int, cp: int) -> None:
    """Megatron-LM: z, x, B, C and dt of a rank's tokens go in, y comes out; nothing is computed twice."""
    keys = ["model=nemotron-h-56b", "gpus=8", "training.global_batch_size=8", "parallelism.dp=0"]

    def layer(tp: int, cp: int) -> LayerShare:
        run = load_run("llama3-8b-8-h100", [*keys, f"parallelism.tp={tp}", f"parallelism.cp={cp}"])
        return plan_run(run).chunks[0].layers[1]

    m, alone, shared = load_model("nemotron-h-56b"), layer(tp, 1), layer(tp, cp)
    assert m.hybrid_layer_pattern[0] == "M"
    assert cp * shared.forward.flops == alone.forward.flops
    assert cp * shared.backward.flops == alone.backward.flops
    inner = m.mamba_num_heads * m.mamba_head_dim
    entering = 2 * inner + 2 * m.mamba_n_groups * m.ssm_state_size + m.mamba_num_heads
    for segment, order in ((shared.forward, 1), (shared.backward, -1)):
        sent = [op for op in (s.op for s in segment.steps) if getattr(op, "axis", "") == "cp"]
        sizes = [op.size_bytes for op in sent if isinstance(op, Collective) and op.kind == "all_to_all"]
        assert sizes == [2.0 * 8192 / cp / tp * width for width in (entering, inner)[::order]]


def test_groups_bound_context_parallelism() -> None:
    with pytest.raises(SpecError, match="must divide the 4 mamba_n_groups"):
        load_run("llama3-8b-8-h100", ["model=nemotron-h-56b", "gpus=16", "parallelism={tp: 2, cp: 8}"])
