"""Context parallelism: work and volumes against the closed forms, folding, and what overlap hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.graph.operators import Attention, Collective, Operator, SendRecv
from simulator.partition.plan import plan_run
from simulator.simulate import simulate
from simulator.spec.documents import Documents
from simulator.spec.load import load_run
from simulator.spec.rules import broken_rules
from simulator.spec.run import RunSpec

METHODS = ["ring", "torch-ring", "all-gather", "ulysses", "hierarchical"]
RINGS = ["ring", "torch-ring", "hierarchical"]
SEQ = 8192
K_AND_V = 8 * (128 + 128)  # Llama 3 8B: elements of keys and values per token


def run_of(cp: int, method: str, *, tp: int = 1, pp: int = 1, dp: int = 1, inner: int = 0) -> RunSpec:
    run = load_run("llama3-8b-8-h100")
    return replace(
        run,
        gpus=tp * cp * dp * pp,
        parallelism=replace(
            run.parallelism,
            tp=tp,
            pp=pp,
            dp=dp,
            cp=cp,
            cp_method=method if cp > 1 else "ring",
            cp_inner=inner,
            sequence_parallel=None,
        ),
        model=replace(run.model, num_hidden_layers=4),
        training=replace(run.training, seq_length=SEQ, micro_batch_size=1, global_batch_size=2 * dp),
        runtime=replace(run.runtime, software="compiled" if method == "torch-ring" else "megatron"),
    )


def in_order(run: RunSpec) -> RunSpec:
    return replace(run, parallelism=replace(run.parallelism, cp_balance=False))


def eager(run: RunSpec) -> RunSpec:
    return replace(run, runtime=replace(run.runtime, software="eager"))


def longer(run: RunSpec, times: int) -> RunSpec:
    return replace(run, training=replace(run.training, seq_length=times * SEQ))


def operators(run: RunSpec, direction: str) -> list[Operator]:
    """Of one decoder layer."""
    return [step.op for step in getattr(plan_run(run).chunks[0].layers[1], direction).steps]


@st.composite
def shared_runs(draw: st.DrawFn) -> RunSpec:
    method = draw(st.sampled_from(METHODS))
    cp = draw(st.sampled_from([2, 4, 8]))
    inner = draw(st.sampled_from([2, 4])) if method == "hierarchical" else 0
    tp, pp = draw(st.sampled_from([(1, 1), (2, 1), (4, 1), (2, 2)]))
    run = run_of(cp, method, tp=tp, pp=pp, dp=draw(st.sampled_from([1, 2])), inner=inner)
    if method in RINGS and draw(st.booleans()):
        run = in_order(run)
    assume(run.gpus <= 64 and not broken_rules(run))
    return run


@settings(max_examples=30, deadline=None)
@given(run=shared_runs())
def test_flops_are_conserved(run: RunSpec) -> None:
    p = run.parallelism
    alone = replace(
        run,
        gpus=run.gpus // p.cp,
        parallelism=replace(p, cp=1, cp_method="ring", cp_inner=0, cp_balance=True),
    )
    whole = plan_run(alone).flops_per_replica
    assert plan_run(run).flops_per_replica * p.cp == pytest.approx(whole, rel=1e-12)


@settings(max_examples=12, deadline=None)
@given(run=shared_runs())
def test_classes_and_blocks_give_the_step_time_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], run: RunSpec
) -> None:
    loses_nothing_by_folding(run)


@pytest.mark.parametrize("cp", [2, 4, 8, 16])
def test_a_ring_sends_keys_and_values_round(cp: int) -> None:
    """c − 1 messages forward; backward c, of 2(c − 1) blocks in all (Transformer Engine)."""
    run = run_of(cp, "ring")
    block = SEQ // cp * K_AND_V * 2.0
    forward = [op for op in operators(run, "forward") if isinstance(op, SendRecv)]
    backward = [op for op in operators(run, "backward") if isinstance(op, SendRecv)]
    assert [op.size_bytes / block for op in forward] == [1.0] * (cp - 1)
    assert [op.size_bytes / block for op in backward] == [1.0, *[2.0] * (cp - 2), 1.0]
    pieces = [op for op in operators(run, "forward") if isinstance(op, Attention)]
    assert len(pieces) == cp
    assert len({op.flops for op in pieces}) == 1  # zig-zag: every block is two squares of slices


def test_gradients_of_an_fp8_ring_travel_at_the_end() -> None:
    """c − 1 hops of keys and values both ways, then one all-to-all of every block's gradients."""
    run = run_of(4, "ring")
    run = replace(run, training=replace(run.training, precision="fp8", fp8_attention=True))
    block = SEQ // 4 * K_AND_V * 1.0
    for direction in ("forward", "backward"):
        hops = [op for op in operators(run, direction) if isinstance(op, SendRecv)]
        assert [op.size_bytes for op in hops] == [block] * 3
    assert collectives(run, "backward") == [("all_to_all", "cp", 4 * block)]


@pytest.mark.parametrize("cp", [2, 4, 8])
@pytest.mark.parametrize("compiled", [True, False])
def test_pytorchs_ring_gathers_repeated_heads_and_sends_fp32_sums_home(cp: int, compiled: bool) -> None:
    """One gather of keys and values of every query head; c hops of a block's sums in fp32. A compiled graph
    keeps or recomputes what it has gathered."""
    run = run_of(cp, "torch-ring") if compiled else eager(run_of(cp, "torch-ring"))
    every_head = 4 * SEQ * K_AND_V
    gather = ("all_gather", "cp", 2.0 * every_head)
    assert collectives(run, "forward") == [gather]
    assert collectives(run, "backward") == ([] if compiled else [gather])
    assert not [op for op in operators(run, "forward") if isinstance(op, SendRecv)]
    hops = [op.size_bytes for op in operators(run, "backward") if isinstance(op, SendRecv)]
    assert hops == [4.0 * every_head / cp] * cp
    passed_round = replace(run, parallelism=replace(run.parallelism, cp_method="ring"))
    kept, usual = (plan_run(one).chunks[0].saved_bytes for one in (run, passed_round))
    assert kept - usual == (4 * 2.0 * every_head if compiled else 0.0)  # of 4 layers


@pytest.mark.parametrize(
    ("cp", "forward", "backward"), [(2, [3.0], [9, 15]), (4, [4.0, 5.0, 4.0], [9, *[15] * 3])]
)
def test_pytorchs_ring_sums_in_fp32(cp: int, forward: list[float], backward: list[float]) -> None:
    """Traffic over the bytes of a block's output. Merges: bf16 blocks, fp32 sums in between. Gradients of as
    many queries, keys and values as outputs: 3 in bf16 (1 + 1 of half the others' keys), 6 in fp32."""
    run = run_of(cp, "torch-ring")
    block = SEQ / cp * 32 * 128 * 2.0

    def traffic(direction: str, name: str) -> list[float]:
        return [op.bytes / block for op in operators(run, direction) if op.name.endswith(name)]

    assert traffic("forward", ".merge") == forward
    halves = [0, *[1] * (cp - 1)]  # of others' keys and values, the last rank attends the first half
    assert traffic("backward", ".accumulate") == [
        all - half for all, half in zip(backward, halves, strict=True)
    ]
    (narrowed,) = traffic("backward", ".narrow")
    assert narrowed == 2 * (2 + 1)


def test_a_compiled_ring_waits_for_what_an_eager_one_hides() -> None:
    """A gather of 3 blocks in bf16 and 4 hops of one in fp32, against the last hop alone: 5.5 to 1."""
    run = longer(run_of(4, "torch-ring"), 16)
    compiled, hidden = (simulate(one).breakdown_s["exposed_cp"] for one in (run, eager(run)))
    assert compiled / hidden == pytest.approx(5.5, rel=0.1)


@pytest.mark.parametrize("method", ["ring", "torch-ring"])
@pytest.mark.parametrize("cp", [2, 8])
def test_slices_in_order_cost_the_last_rank_all_blocks(method: str, cp: int) -> None:
    """2c − 1 causal blocks' worth of work in place of c."""
    run = longer(run_of(cp, method), 16)
    balanced, ordered = simulate(run), simulate(in_order(run))
    more = ordered.step_time_s - balanced.step_time_s
    assert more / balanced.breakdown_s["attention"] == pytest.approx((cp - 1) / cp, rel=0.05)


def test_pytorchs_ring_knows_one_mask() -> None:
    run = run_of(2, "torch-ring")
    documents = Documents(distribution="fixed", mean=1024)
    (broken,) = broken_rules(replace(run, training=replace(run.training, documents=documents)))
    assert (broken.key_path, broken.suggestion) == ("parallelism.cp_method", "ring or all-gather")


def collectives(run: RunSpec, direction: str) -> list[tuple[str, str, float]]:
    ops = [op for op in operators(run, direction) if isinstance(op, Collective) and op.axis != "tp"]
    return [(op.kind, op.axis, op.size_bytes) for op in ops]


@pytest.mark.parametrize("tp", [1, 2])
def test_all_gather_moves_all_keys_and_values(tp: int) -> None:
    run = run_of(4, "all-gather", tp=tp)
    size = SEQ * K_AND_V * 2.0 / tp
    assert collectives(run, "forward") == [("all_gather", "cp", size)]
    assert collectives(run, "backward") == [("all_gather", "cp", size), ("reduce_scatter", "cp", size)]


@pytest.mark.parametrize(("cp", "kv"), [(2, 8), (8, 8), (16, 16), (32, 32)])
def test_ulysses_exchanges_heads(cp: int, kv: int) -> None:
    """4·N·h/P elements per layer and rank with equal heads (Jacobs 2023, section 3.2).

    Key-value heads fewer than ranks go to several of them.
    """
    run = run_of(cp, "ulysses")
    rows = SEQ / cp * 2.0 * 128
    exchanged = [("all_to_all", "cp", rows * (32 + 2 * kv)), ("all_to_all", "cp", rows * 32)]
    assert collectives(run, "forward") == exchanged
    assert collectives(run, "backward") == exchanged[::-1]
    (core,) = [op for op in operators(run, "forward") if isinstance(op, Attention)]
    assert (core.heads, core.seq_q, core.seq_kv) == (32 // cp, SEQ, SEQ)


def test_hierarchical_exchanges_heads_inside_and_rings_across() -> None:
    run = run_of(8, "hierarchical", inner=2)
    hops = [op for op in operators(run, "forward") if isinstance(op, SendRecv)]
    assert {op.axis for op in hops} == {"cp_outer"}
    assert [op.size_bytes for op in hops] == [SEQ / 4 * K_AND_V / 2 * 2.0] * 3
    assert {axis for _, axis, _ in collectives(run, "forward")} == {"cp_inner"}


@given(
    queries=st.integers(1, 300), before=st.integers(0, 300), window=st.integers(0, 400), causal=st.booleans()
)
def test_score_pairs_count_what_is_seen(queries: int, before: int, window: int, causal: bool) -> None:
    core = Attention(
        name="a",
        batch=1,
        seq_q=queries,
        seq_kv=before + queries,
        heads=1,
        kv_heads=1,
        qk_head_dim=1,
        v_head_dim=1,
        causal=causal,
        window=window,
    )
    if not causal:
        assert core.score_pairs == queries * (before + queries)
        return
    seen = [before + i + 1 for i in range(queries)]
    counted = sum(min(window, n) if window else n for n in seen)
    assert core.score_pairs == pytest.approx(counted, abs=queries / 2)  # half a key per query on the diagonal


@pytest.mark.parametrize("method", ["ring", "all-gather", "ulysses"])
def test_longer_sequences_on_more_ranks_cost_their_attention(method: str) -> None:
    """Tokens per GPU constant: the time grows by the attention over more keys, and little else."""
    base = run_of(1, "ring")
    long = replace(
        run_of(8, method), training=replace(base.training, seq_length=8 * SEQ, global_batch_size=2)
    )
    one, eight = simulate(base), simulate(long)
    gemm = eight.breakdown_s["gemm"]
    assert gemm == pytest.approx(one.breakdown_s["gemm"], rel=0.01)
    assert 7 < eight.breakdown_s["attention"] / one.breakdown_s["attention"] < 9


def test_a_ring_in_a_node_hides_behind_long_attention() -> None:
    long = run_of(8, "ring")
    long = replace(long, training=replace(long.training, seq_length=16 * SEQ))
    result = simulate(long)
    assert result.breakdown_s.get("exposed_cp", 0.0) < 0.01 * result.step_time_s


def test_saved_activations_shrink_with_the_group() -> None:
    one, four = (plan_run(run_of(cp, "ring")).chunks[0].saved_bytes for cp in (1, 4))
    assert four == pytest.approx(one / 4)
