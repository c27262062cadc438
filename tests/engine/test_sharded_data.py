"""ZeRO-2, ZeRO-3, FSDP and HSDP in the engine: folding loses nothing, traffic is all there, overlap helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.rules import broken_rules
from simulator.spec.run import RunSpec, Simulation
from simulator.spec.sharding import FullySharded


@st.composite
def sharded_runs(draw: st.DrawFn) -> RunSpec:
    """Llama-3-8B-like runs of up to 32 ranks."""
    run = load_run("llama3-8b-8-h100")
    tp, pp, vp = draw(st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 1), (1, 2, 2), (2, 4, 1)]))
    dp = draw(st.sampled_from([d for d in (1, 2, 4, 8) if d * tp * pp <= 32]))
    zero = draw(st.sampled_from([2, 3]))
    fsdp = FullySharded()
    if zero == 3:
        fsdp = FullySharded(
            reshard_after_forward=draw(st.sampled_from([None, False, True])),
            reshard_after_backward=draw(st.sampled_from([None, False, True])),
            gradient_sync=draw(st.sampled_from(["", "microbatch", "step"])),
            prefetch=draw(st.integers(1, 3)),
            buffers=draw(st.sampled_from(["copied", "flat", "in-place"])),
        )
    run = replace(
        run,
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=8, tie_word_embeddings=draw(st.booleans())),
        parallelism=replace(
            run.parallelism,
            tp=tp,
            pp=pp,
            vp=vp,
            dp=dp,
            zero=zero,
            fsdp=fsdp,
            shard_size=draw(st.sampled_from([d for d in (0, 1, 2, 4) if d <= dp])),
            sequence_parallel=None,
            schedule="",
        ),
        training=replace(
            run.training, global_batch_size=draw(st.integers(1, 2)) * pp * dp, micro_batch_size=1
        ),
    )
    assume(not broken_rules(run))
    return run


@settings(max_examples=20, deadline=None)
@given(run=sharded_runs())
def test_classes_and_blocks_give_the_step_time_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], run: RunSpec
) -> None:
    loses_nothing_by_folding(run)


@settings(max_examples=10, deadline=None)
@given(run=sharded_runs(), more=st.integers(1, 4))
def test_gathers_further_ahead_are_never_slower(run: RunSpec, more: int) -> None:
    assume(run.parallelism.zero == 3)
    fsdp = run.parallelism.fsdp
    ahead = replace(fsdp, prefetch=fsdp.prefetch + more)
    longer = simulate(replace(run, parallelism=replace(run.parallelism, fsdp=ahead)))
    moved = 1e-3  # which kernels a gather slows down changes
    assert longer.step_time_s <= simulate(run).step_time_s * (1 + moved)


def fsdp_run(microbatches: int, **fsdp: object) -> RunSpec:
    run = load_run("llama3-8b-8-h100")
    layout = replace(
        run.parallelism,
        tp=1,
        dp=8,
        zero=3,
        sequence_parallel=None,
        fsdp=FullySharded(**fsdp),  # type: ignore[arg-type]
    )
    training = replace(run.training, micro_batch_size=1, global_batch_size=8 * microbatches)
    return replace(run, parallelism=layout, training=training)


@pytest.mark.parametrize(
    ("options", "gathers", "reductions"),
    [
        ({}, 2 * (32 + 32 + 2), 2 * 34),
        ({"reshard_after_forward": False}, 2 * 34, 2 * 34),
        ({"reshard_after_forward": None, "reshard_after_backward": False}, 34, 2 * 34),
        ({"gradient_sync": "step"}, 2 * (32 + 32 + 2), 34),
    ],
)
def test_units_are_gathered_and_reduced_as_often_as_asked(
    options: dict[str, object], gathers: int, reductions: int
) -> None:
    """32 layers, embedding and head; those two stay whole between forward and backward. Two microbatches."""
    events = simulate(fsdp_run(2, **options), timeline=True).timeline
    names = Counter(event.name for event in events if event.thread == "dp")
    assert names["unit.param_all_gather"] == gathers
    assert names["gradients.grad_reduce_scatter"] == reductions


@pytest.mark.parametrize("options", [{}, {"gradient_sync": "step"}, {"reshard_after_forward": False}])
def test_many_microbatches_cost_as_much_as_their_fold_says(options: dict[str, object]) -> None:
    run = fsdp_run(40, **options)
    folded, full = simulate(run), simulate(run, timeline=True)
    assert folded.step_time_s == pytest.approx(full.step_time_s, rel=1e-9)


def test_traffic_that_fits_behind_compute_is_hidden() -> None:
    """Inside a node a layer's gather is shorter than its forward; what is left is the processors it takes."""
    eight = simulate(fsdp_run(8))
    assert eight.breakdown_s["exposed_dp"] < 0.05 * eight.step_time_s


def test_weights_are_quantised_again_whenever_they_are_gathered() -> None:
    def preparing(narrow: bool = False, **fsdp: object) -> int:
        run = fsdp_run(3, **fsdp)
        run = replace(run, training=replace(run.training, precision="fp8", fp8_param_gather=narrow))
        run = replace(run, simulation=Simulation(detail="operator"))
        names = [event.name for event in simulate(run, timeline=True).timeline]
        return sum(".weight" in name for name in names)

    once = preparing(reshard_after_backward=False)
    assert once > 0
    assert preparing() == preparing(reshard_after_forward=False) == 3 * 2 * once  # forward and backward
    turned = preparing(narrow=True, reshard_after_backward=False)
    assert preparing(narrow=True) == 3 * turned


@pytest.mark.parametrize(
    "options",
    [{}, {"reshard_after_forward": True}, {"reshard_after_backward": True, "gradient_sync": "microbatch"}],
)
def test_pipelines_of_sharded_stages_fold_too(options: dict[str, object]) -> None:
    run = fsdp_run(64, **options)
    run = replace(run, gpus=16, parallelism=replace(run.parallelism, pp=2))
    folded, full = simulate(run), simulate(run, timeline=True)
    assert folded.step_time_s == pytest.approx(full.step_time_s, rel=1e-9)


@pytest.mark.parametrize("ep", [1, 4])
def test_experts_of_a_unit_come_with_it(loses_nothing_by_folding: Callable[[RunSpec], None], ep: int) -> None:
    run = load_run("mixtral-8x7b-64-h100")
    layout = replace(
        run.parallelism, tp=1, etp=0, ep=ep, pp=1, vp=1, dp=8, zero=3, sequence_parallel=None, schedule=""
    )
    run = replace(
        run,
        gpus=8,
        model=replace(run.model, num_hidden_layers=4),
        parallelism=layout,
        training=replace(run.training, micro_batch_size=1, global_batch_size=16),
    )
    assert not broken_rules(run)
    loses_nothing_by_folding(run)
    events = simulate(run, timeline=True).timeline
    gathers = Counter(e.thread for e in events if e.name == "unit.param_all_gather")
    assert gathers == {"dp": 2 * (4 + 4 + 2), "edp": 2 * (4 + 4)}


@pytest.mark.parametrize("overlap", [True, False])
def test_zero_2_reduces_in_every_microbatch_and_without_overlap_its_backward_waits(overlap: bool) -> None:
    """As DeepSpeed's hooks do: no gradient is kept whole until the next microbatch."""
    run = fsdp_run(3)
    run = replace(
        run,
        parallelism=replace(run.parallelism, zero=2),
        runtime=replace(run.runtime, overlap_grad_reduce=overlap, ddp_bucket_elements=1e9),
    )
    events = simulate(run, timeline=True).timeline
    spans = {name: [e for e in events if e.thread == "compute" and e.name == name] for name in ("B0", "F1")}
    reductions = [e for e in events if "grad_reduce" in e.name]
    begun = [e for e in reductions if e.start_s < spans["F1"][-1].end_s]
    assert len(begun) == len(reductions) / 3
    beside = [
        e
        for e in reductions
        for c in spans["B0"]
        if e.start_s < c.end_s - 1e-9 and c.start_s < e.end_s - 1e-9
    ]
    assert bool(beside) == overlap
