"""Documents packed into sequences: exact counts, conserved work, and who waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine.uneven import attention_seconds
from simulator.graph.documents import filled, sample, whole_mask
from simulator.graph.flops import find_convention
from simulator.partition.document_load import (
    MicrobatchLoads,
    expected_maximum,
    microbatch_loads,
    share_documents,
)
from simulator.partition.plan import plan_run
from simulator.preparation.prepared import with_schedule
from simulator.schedule.registry import SCHEDULES
from simulator.shared import Shared
from simulator.simulate import simulate
from simulator.spec.documents import Documents
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec

SEQ = 8192


def fixed(tokens: float) -> Documents:
    return Documents(distribution="fixed", mean=tokens)


def lognormal(mean: float, sigma: float, *, seed: int = 0, packing: str = "cut") -> Documents:
    return Documents(distribution="lognormal", mean=mean, sigma=sigma, seed=seed, packing=packing)


def run_of(documents: Documents, *, cp: int = 1, dp: int = 1, pp: int = 1, **split: object) -> RunSpec:
    run = load_run("llama3-8b-8-h100")
    return replace(
        run,
        gpus=cp * dp * pp,
        parallelism=replace(run.parallelism, tp=1, dp=dp, pp=pp, cp=cp, **split),
        model=replace(run.model, num_hidden_layers=4),
        training=replace(
            run.training, seq_length=SEQ, micro_batch_size=1, global_batch_size=4 * dp, documents=documents
        ),
    )


@st.composite
def distributions(draw: st.DrawFn) -> Documents:
    if draw(st.booleans()):
        return fixed(draw(st.integers(1, 2 * SEQ)))
    packing = draw(st.sampled_from(["cut", "whole"]))
    mean, sigma = draw(st.floats(100.0, SEQ)), draw(st.floats(0.1, 2.0))
    return lognormal(mean, sigma, seed=draw(st.integers(0, 99)), packing=packing)


@settings(max_examples=25, deadline=None)
@given(documents=distributions(), cp=st.sampled_from([2, 4, 8]), window=st.sampled_from([0, 1000]))
def test_ranks_share_all_pairs_however_they_are_cut(documents: Documents, cp: int, window: int) -> None:
    whole = whole_mask(documents, SEQ, window).pairs
    for whole_sequences in (False, True):
        share = share_documents(documents, SEQ, window, cp, 1, whole_sequences=whole_sequences)
        assert share.mask.pairs * cp == pytest.approx(whole, rel=1e-9)
        assert 1.0 <= share.peak <= cp


@settings(max_examples=12, deadline=None)
@given(
    documents=distributions(),
    cp=st.sampled_from([2, 4]),
    split=st.sampled_from(
        [
            {"cp_method": "ring"},
            {"cp_method": "ulysses"},
            {"cp_method": "all-gather"},
            {"cp_method": "all-gather", "cp_slices": "document"},
        ]
    ),
)
def test_flops_are_conserved_under_every_cp_split(
    documents: Documents, cp: int, split: dict[str, object]
) -> None:
    alone = plan_run(run_of(documents)).flops_per_replica
    assert plan_run(run_of(documents, cp=cp, **split)).flops_per_replica * cp == pytest.approx(
        alone, rel=1e-9
    )


def test_fixed_documents_have_the_pairs_of_their_squares() -> None:
    """8 documents of 1,024 tokens: 8·1024²/2; of 3,000: two whole ones and the rest, as the stream is cut."""
    assert whole_mask(fixed(1024), SEQ, 0).pairs == 8 * 1024**2 / 2
    cut = sample(fixed(3000), SEQ)
    first = cut.lengths[cut.sequence == 0]
    second = cut.lengths[cut.sequence == 1]
    assert list(first) == [3000, 3000, 2192]
    assert list(second) == [808, 3000, 3000, 1384]


def test_drawn_documents_have_the_mean_asked_for() -> None:
    """Before they are cut: E[s] = 500, and a token's document has E[s²]/E[s] = mean·exp(σ²)."""
    drawn = sample(lognormal(500.0, 0.5), 2**20)
    assert drawn.lengths.mean() == pytest.approx(500, rel=0.01)
    assert (drawn.lengths**2).mean() / drawn.lengths.mean() == pytest.approx(500 * np.exp(0.25), rel=0.01)


def test_whole_documents_leave_padding_and_one_per_sequence_leaves_the_rest() -> None:
    packed = Documents(distribution="fixed", mean=5000, packing="whole")
    assert filled(packed, SEQ) == 5000 / SEQ
    assert filled(lognormal(500.0, 1.0, packing="whole"), SEQ) > 0.97


def test_a_listed_distribution_counts_documents_not_tokens() -> None:
    listed = Documents(distribution="listed", lengths=(128, 1024), shares=(3, 1))
    lengths = sample(listed, 2**20).lengths
    assert (lengths == 128).sum() / (lengths == 1024).sum() == pytest.approx(3.0, rel=0.05)


def test_one_document_a_sequence_is_a_run_without_documents() -> None:
    for split in ({}, {"cp_method": "all-gather"}, {"cp_method": "ring"}):
        cp = 2 if split else 1
        plain, one = run_of(Documents(), cp=cp, **split), run_of(fixed(SEQ), cp=cp, **split)
        apart = 0.003 if split else 0.0  # gathered: two kernels, one for each slice, are one for packed data
        assert simulate(one).step_time_s == pytest.approx(simulate(plain).step_time_s, rel=apart)


def test_slices_of_documents_are_even_and_slices_of_sequences_are_not() -> None:
    """Zig-zag slices balance one document; of many, some ranks get the late tokens of the long ones."""
    documents = lognormal(1000.0, 1.5)
    share = {
        whole: share_documents(documents, SEQ, 0, 8, 1, whole_sequences=whole) for whole in (False, True)
    }
    assert share[False].peak == pytest.approx(1.0)
    assert share[True].peak > 1.3
    assert share_documents(fixed(SEQ), SEQ, 0, 8, 1, whole_sequences=True).peak == pytest.approx(1.0)
    assert share[False].mask.tiles > share[True].mask.tiles  # shorter pieces fill fewer tiles


def test_the_fullest_rank_is_waited_for_in_every_layer() -> None:
    run = run_of(lognormal(1000.0, 1.5), cp=4, cp_method="all-gather")
    even = replace(run, parallelism=replace(run.parallelism, cp_slices="document"))
    waits = [simulate(each).breakdown_s["exposed_cp"] for each in (run, even)]
    assert waits[0] > 1.2 * waits[1]


def test_expected_maxima_of_equally_likely_values() -> None:
    """The largest of n uniform draws has the mean n / (n + 1)."""
    values = (np.arange(10_000) + 0.5) / 10_000
    for draws in (1, 2, 8):
        assert expected_maximum(values, draws) == pytest.approx(draws / (draws + 1), abs=1e-4)


def test_more_replicas_and_more_ranks_that_meet_wait_longer() -> None:
    def mean(replicas: int, meeting: int) -> float:
        loads = microbatch_loads(
            lognormal(1000.0, 1.5),
            SEQ,
            0,
            1,
            1,
            whole_sequences=False,
            microbatches=16,
            depth=0.0,
            replicas=replicas,
            meeting=meeting,
            axis="dp",
        )
        assert loads is not None
        return loads.mean

    assert mean(1, 1) == pytest.approx(1.0, abs=0.03)
    assert mean(1, 1) < mean(8, 1) < mean(64, 1) < mean(64, 64)


def test_equal_documents_cost_what_their_attention_costs() -> None:
    steps = [simulate(run_of(fixed(tokens), dp=2, pp=2)).step_time_s for tokens in (512, 1024, 2048, 8192)]
    assert steps == sorted(steps)


def test_a_pipeline_stalls_behind_its_heaviest_microbatch() -> None:
    """Of equal work in all, one microbatch has twice the mean: every stage but one waits for that once."""
    run = run_of(fixed(SEQ), pp=4)
    run = replace(run, model=replace(run.model, vocab_size=128))  # stages are alike
    prepared, blocks = with_schedule(run, SCHEDULES["gpipe"]), Shared().blocks(run)

    def step(*work: float) -> float:
        loads = MicrobatchLoads(work, sum(work) / len(work), "dp")
        return replace(prepared, plan=replace(prepared.plan, loads=loads)).replay(blocks).seconds

    layer = prepared.plan.chunks[1].layers[0]  # a stage's only one
    attention_s = attention_seconds((layer.forward, layer.backward), blocks.costs)
    even = step(1.0, 1.0, 1.0, 1.0)
    assert even == pytest.approx(prepared.replay(blocks).seconds)
    assert step(2.0, 2.0, 2.0, 2.0) == pytest.approx(even + (4 + 3) * attention_s)
    assert even < step(1.0, 2.0, 0.5, 0.5) < even + 3.01 * attention_s


@pytest.mark.parametrize("split", [{"pp": 2}, {"cp": 2, "cp_method": "all-gather"}])
def test_blocks_give_the_step_of_every_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], split: dict[str, object]
) -> None:
    loses_nothing_by_folding(run_of(lognormal(1000.0, 1.2), dp=2, **split))  # type: ignore[arg-type]


def test_flops_keep_the_usual_count_unless_the_run_asks_for_documents() -> None:
    """Real tokens see half of their own document: 3·2·a·(qk + v)·Σs²/2 in place of the square's half."""
    run = run_of(fixed(1024))
    model = run.model
    counted = {
        name: find_convention(name).flops_per_step(
            model, seq_length=SEQ, global_batch_size=1, documents=run.documents
        )
        for name in ("megatron", "megatron-packed")
    }
    a, d, layers = model.num_attention_heads, model.head_dim, model.num_hidden_layers
    core = layers * 3 * 2 * a * 2 * d * (SEQ**2 - 8 * 1024**2) / 2
    assert counted["megatron"] - counted["megatron-packed"] == pytest.approx(core)
    assert simulate(run).flops_convention == "megatron"
