"""Expert parallelism: volumes, shapes and what they conserve, against the closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.graph.operators import Awaited, Collective, GroupedGemm, MemoryBound
from simulator.graph.parameters import count_parameters
from simulator.partition.expert_load import router_load
from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import plan_run
from simulator.partition.segment import HOST, Segment
from simulator.spec.expert_load import ExpertLoad
from simulator.spec.load import load_model, load_run
from simulator.spec.recompute import Recompute
from simulator.spec.run import RunSpec

TOKENS, TOP_K, HIDDEN = 4096, 2, 4096  # of the Mixtral run
SIZES = st.sampled_from([1, 2, 4, 8])


def mixtral(tp: int = 1, ep: int = 8, etp: int = 1, pp: int = 1, dp: int = 8, **runtime: object) -> RunSpec:
    run = load_run("mixtral-8x7b-64-h100")
    return replace(
        run,
        gpus=tp * pp * dp,
        parallelism=replace(run.parallelism, tp=tp, pp=pp, vp=1, dp=dp, ep=ep, etp=etp, schedule=""),
        training=replace(run.training, global_batch_size=64),
        runtime=replace(run.runtime, **runtime),  # type: ignore[arg-type]
    )


def expert_layer(run: RunSpec) -> LayerShare:
    return next(layer for chunk in plan_run(run).chunks for layer in chunk.layers if layer.expert_parameters)


def collectives(segment: Segment, axis: str) -> list[Collective]:
    return [s.op for s in segment.steps if isinstance(s.op, Collective) and s.op.axis == axis]


@st.composite
def layouts(draw: st.DrawFn) -> RunSpec:
    tp, pp, dp = (draw(SIZES) for _ in range(3))
    ep = draw(SIZES.filter(lambda size: tp * dp % size == 0))
    etp = draw(SIZES.filter(lambda size: tp * dp % (ep * size) == 0))
    return mixtral(tp=tp, pp=pp, dp=dp, ep=ep, etp=etp)


@settings(max_examples=40, deadline=None)
@given(run=layouts())
def test_flops_are_conserved_under_every_layout(run: RunSpec) -> None:
    plan, alone = plan_run(run), plan_run(mixtral(ep=1, dp=1))
    vocabulary = plan.padded_vocab_size == alone.padded_vocab_size
    assume(vocabulary)
    assert plan.flops_per_replica * run.dp == pytest.approx(alone.flops_per_replica, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(run=layouts())
def test_ranks_hold_every_parameter_as_often_as_the_layout_says(run: RunSpec) -> None:
    plan, p, count = plan_run(run), run.parallelism, count_parameters(run.model)
    experts = sum(chunk.expert_parameters for chunk in plan.chunks) * p.ep * p.etp
    assert experts == pytest.approx(count.experts)
    others = sum(
        (layer.parameters - layer.expert_parameters - layer.replicated_parameters) * p.tp
        + layer.replicated_parameters
        for chunk in plan.chunks
        for layer in chunk.layers
    )
    padding = 2 * (plan.padded_vocab_size - run.model.vocab_size) * run.model.hidden_size
    assert others == pytest.approx(count.total - count.experts + padding)
    copies = plan.data.copies("edp") * p.ep * p.etp
    assert copies == plan.data.copies("dp_cp") * p.tp == run.gpus // p.pp


@settings(max_examples=40, deadline=None)
@given(run=layouts())
def test_every_rank_sends_each_copy_of_its_tokens_there_and_back(run: RunSpec) -> None:
    """T/t·k·h elements a way, two ways forward and two backward; expert-TP gathers etp times as much."""
    p, layer = run.parallelism, expert_layer(run)
    rows = TOKENS // p.tp * TOP_K * HIDDEN * 2.0
    for segment in (layer.forward, layer.backward):
        sent = [op.size_bytes for op in collectives(segment, "ep") if op.name in WAYS]
        assert sent == ([rows] * 2 if p.ep > 1 else [])
        joined = [op.size_bytes for op in collectives(segment, "etp")]
        assert joined == ([rows * p.etp] * 2 if p.etp > 1 else [])


WAYS = ("dispatch.all_to_all", "combine.all_to_all")


@settings(max_examples=40, deadline=None)
@given(run=layouts())
def test_local_experts_share_the_rows_evenly(run: RunSpec) -> None:
    """Rows per local expert (T/t)·k·ep·etp/E."""
    p = run.parallelism
    products = [s.op for s in expert_layer(run).forward.steps if isinstance(s.op, GroupedGemm)]
    assert {op.groups for op in products} == {8 // p.ep}
    assert {op.rows / op.groups for op in products} == {TOKENS / p.tp * TOP_K * p.ep * p.etp / 8}
    fc1, fc2 = products
    assert (fc1.n, fc2.k) == (2 * 14336 // p.etp, 14336 // p.etp)


def test_the_allgather_dispatcher_sends_every_token_everywhere() -> None:
    layer = expert_layer(mixtral(moe_dispatcher="allgather"))
    gathered = [op for op in collectives(layer.forward, "ep") if not op.name.startswith("route")]
    assert [(op.kind, op.size_bytes) for op in gathered] == [
        ("all_gather", 8 * TOKENS * HIDDEN * 2.0),
        ("reduce_scatter", 8 * TOKENS * HIDDEN * 2.0),
    ]


@pytest.mark.parametrize("dispatcher", ["deepep", "hybridep"])
def test_node_limited_dispatchers_mark_their_copies(dispatcher: str) -> None:
    layer = expert_layer(mixtral(moe_dispatcher=dispatcher))
    assert [op.copies for op in collectives(layer.forward, "ep")] == [TOP_K, TOP_K]


def test_recomputing_the_experts_repeats_their_communication() -> None:
    run = mixtral()
    again = replace(
        run, training=replace(run.training, recompute=Recompute(granularity="selective", modules=("moe",)))
    )
    ways = [op for op in collectives(expert_layer(again).backward, "ep") if op.name in WAYS]
    assert len(ways) == 4
    assert expert_layer(again).saved_bytes < expert_layer(run).saved_bytes


def test_recomputing_their_activation_drops_what_it_makes() -> None:
    run = mixtral()
    again = replace(
        run,
        training=replace(run.training, recompute=Recompute(granularity="selective", modules=("moe_act",))),
    )
    dropped = TOKENS * TOP_K * 14336 * 2.0
    assert expert_layer(run).saved_bytes - expert_layer(again).saved_bytes == dropped
    assert collectives(expert_layer(again).backward, "ep") == collectives(expert_layer(run).backward, "ep")


def test_the_host_waits_for_row_counts_unless_they_are_fixed() -> None:
    def synchronisations(run: RunSpec) -> int:
        return sum(step.stream == "host" for step in expert_layer(run).forward.steps)

    run = mixtral()
    padded = ExpertLoad(capacity_factor=1.0, pad_to_capacity=True)
    assert synchronisations(run) == 1
    assert synchronisations(replace(run, training=replace(run.training, moe=padded))) == 0
    assert synchronisations(mixtral(cuda_graphs="full")) == 0


def test_a_bounded_activation_makes_the_host_wait_for_the_product_before_it() -> None:
    """Its offset is copied from pageable memory: once forward, once more where the activation is recomputed;
    a graph of the whole step has no host to wait.
    """
    run = load_run("mixtral-8x7b-64-h100")
    bounded = replace(run, model=replace(run.model, swiglu_limit=7.0))
    again = Recompute(granularity="selective", modules=("moe_act",))
    for case, expected in (
        (run, (0, 0)),
        (bounded, (1, 0)),
        (replace(bounded, training=replace(run.training, recompute=again)), (1, 1)),
        (replace(bounded, runtime=replace(run.runtime, cuda_graphs="full")), (0, 0)),
    ):
        layer = expert_layer(case)
        waits = [
            [s.op.name for s in part.steps if s.stream == HOST] for part in (layer.forward, layer.backward)
        ]
        assert tuple(names.count("activation_offset") for names in waits) == expected
    steps = expert_layer(bounded).forward.steps
    (at,) = (i for i, step in enumerate(steps) if step.op.name == "activation_offset")
    assert steps[at - 1].op.name == "experts.fc1" and at - 1 in steps[at].waits
    assert at in steps[at + 1].waits


def test_one_kernel_runs_all_experts_where_the_host_does_not_know_their_rows() -> None:
    def apart(**runtime: object) -> set[bool]:
        steps = expert_layer(mixtral(ep=1, **runtime)).forward.steps
        return {step.op.apart for step in steps if isinstance(step.op, GroupedGemm)}

    assert apart() == apart(cuda_graphs="layer") == {True}
    assert apart(cuda_graphs="full") == apart(moe_grouped_gemm="fused") == {False}


def test_a_layers_graph_holds_the_parts_in_its_scope() -> None:
    def captured(*scope: str) -> set[str]:
        steps = expert_layer(mixtral(cuda_graphs="layer", cuda_graph_scope=scope)).forward.steps
        return {step.op.name for step in steps if step.captured}

    assert {"qkv", "core_attn", "router"} <= captured()
    assert captured() == captured("attn", "moe_router", "moe_preprocess")
    assert captured("moe_router").isdisjoint({"qkv", "core_attn"})
    assert "router" not in captured("attn")
    assert "experts.fc1" not in captured()


@pytest.mark.parametrize(
    ("scope", "outputs"), [((), 2), (("attn", "moe_router", "moe_preprocess"), 2), (("attn",), 1)]
)
def test_what_crosses_the_edge_of_a_layers_graph_is_copied(scope: tuple[str, ...], outputs: int) -> None:
    """Its input forward; backward the gradients of the stream and, where the graph ends in the experts'
    layer, of the rows to be sent. Read and written in 16 bits.
    """
    layer = expert_layer(mixtral(cuda_graphs="layer", cuda_graph_scope=scope))
    copies = [
        [(step.op.name, step.op.bytes) for step in part.steps if step.op.name.startswith("graph_")]
        for part in (layer.forward, layer.backward)
    ]
    size = TOKENS * HIDDEN * 4
    forward = [copy for copy in copies[0] if copy[1]]
    assert forward == [("graph_input", size)]
    assert copies[1] == [("graph_output.backward", outputs * size)]


@pytest.mark.parametrize("graphs", ["none", "full"])
def test_nothing_is_copied_where_graphs_have_no_edge_in_a_layer(graphs: str) -> None:
    names = {step.op.name for step in expert_layer(mixtral(cuda_graphs=graphs)).forward.steps}
    assert "graph_input" not in names
    dense = load_run("llama3-8b-8-h100")
    captured = replace(dense, runtime=replace(dense.runtime, cuda_graphs="layer"))
    steps = plan_run(captured).chunks[0].layers[1].forward.steps
    assert "graph_input" not in {step.op.name for step in steps}


def test_rows_that_come_once_per_rank_are_copied_to_each_of_its_experts() -> None:
    """2 of 8 ranks by 2 copies: 8·(1 − (7/8)²) ranks see a token on average."""
    steps = expert_layer(mixtral(moe_dispatcher="hybridep")).forward.steps
    sort = next(step.op for step in steps if step.op.name == "expert_sort")
    rows = TOKENS * TOP_K * HIDDEN * 2.0
    assert isinstance(sort, MemoryBound)
    assert sort.write_bytes == rows
    assert sort.read_bytes == pytest.approx(rows * 8 * (1 - (7 / 8) ** 2) / TOP_K)


def test_uneven_ranks_wait_for_work_that_is_not_theirs() -> None:
    run = mixtral()
    uneven = replace(run, training=replace(run.training, moe=ExpertLoad(imbalance=1.5)))
    layer, even = expert_layer(uneven), expert_layer(run)
    assert layer.forward.flops == even.forward.flops
    awaited = [s.op.work for s in layer.forward.steps if isinstance(s.op, Awaited)]
    products = [op for op in awaited if isinstance(op, GroupedGemm)]
    mine = [s.op for s in layer.forward.steps if isinstance(s.op, GroupedGemm)]
    assert [op.rows for op in products] == [1.5 * op.rows for op in mine]
    assert layer.saved_bytes > even.saved_bytes  # memory holds the fullest rank


def test_rows_are_conserved_by_any_given_imbalance() -> None:
    for ranks in (2, 8, 64):
        for imbalance in (1.0, 1.3, 2.0):
            load = router_load(ExpertLoad(imbalance=imbalance), ranks, 64, seed=(0, 0))
            assert load.mean == pytest.approx(1.0)
            assert load.peak == imbalance


@given(variation=st.floats(0.01, 1.0), ranks=st.sampled_from([1, 2, 8, 32]), layer=st.integers(0, 60))
def test_drawn_loads_average_to_one_and_capacity_bounds_them(
    variation: float, ranks: int, layer: int
) -> None:
    free = router_load(ExpertLoad(variation=variation), ranks, 64, seed=(0, layer))
    assert free.mean == pytest.approx(1.0)
    assert free.peak >= 1.0 - 1e-9
    bound = router_load(ExpertLoad(variation=variation, capacity_factor=1.2), ranks, 64, seed=(0, layer))
    assert bound.mean <= free.mean + 1e-9
    assert bound.peak <= min(1.2, free.peak) + 1e-9


def test_padding_gives_every_expert_its_capacity() -> None:
    load = router_load(ExpertLoad(capacity_factor=1.25, pad_to_capacity=True), 8, 64, seed=(0, 0))
    assert load == (1.25, 1.25)


def test_a_prediction_layer_away_from_the_embedding_holds_a_copy_of_it() -> None:
    model = load_model("deepseek-v3")
    run = load_run("deepseek-v3-2048-h800")
    plan = plan_run(run)
    held = sum(
        layer.parameters - layer.expert_parameters + layer.expert_parameters * run.parallelism.ep
        for chunk in plan.chunks
        for layer in chunk.layers
    )
    count = count_parameters(model)
    copy = model.vocab_size * model.hidden_size
    assert held == pytest.approx(count.without_mtp + count.mtp + copy)
    assert plan.tied_embedding_bytes == copy * 4.0
