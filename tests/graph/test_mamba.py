"""Mamba-2 layers: the scan costs the same for every token, and tensor parallelism loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.decoder import decoder_layer, layer_kinds
from simulator.graph.layer import LayerGraph
from simulator.graph.operators import Gemm
from simulator.graph.options import GraphOptions
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


def test_context_parallel_scans_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match="Mamba layers under context parallelism"):
        load_run("llama3-8b-8-h100", ["model=nemotron-h-56b", "parallelism={cp: 2}"])
