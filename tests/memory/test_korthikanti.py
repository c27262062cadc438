"""Activations of a GPT layer: the formulas of Korthikanti 2022 (arXiv 2205.05198), equations 1 to 6."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.partition.plan import plan_run
from simulator.spec.recompute import Recompute
from simulator.spec.run import RunSpec

S, B, H, A = 2048, 1, 1024, 16
SBH = S * B * H


def layer_bytes(run: RunSpec) -> float:
    """What one rank keeps of a decoder layer."""
    return plan_run(run).chunks[0].layers[1].saved_bytes


def formula(t: int, *, sequence: bool, square: bool) -> float:
    """sbh(10 + 24/t + 5as/(ht)), or all of it over t with sequence parallelism; ``square``: as for scores."""
    scores = 5 * A * S / H if square else 0.0
    return SBH * ((34 + scores) / t if sequence else 10 + (24 + scores) / t)


@pytest.mark.parametrize("t", [1, 2, 4, 8])
@pytest.mark.parametrize("sequence", [False, True])
def test_layer_without_recompute(make_run: Callable[..., RunSpec], t: int, sequence: bool) -> None:
    run = make_run(tp=t, sequence_parallel=sequence and t > 1, attention="unfused")
    assert layer_bytes(run) == formula(t, sequence=sequence and t > 1, square=True)


@pytest.mark.parametrize("t", [1, 2, 4, 8])
@pytest.mark.parametrize("sequence", [False, True])
def test_layer_with_selective_recompute(make_run: Callable[..., RunSpec], t: int, sequence: bool) -> None:
    recompute = Recompute(granularity="selective", modules=("core_attn",))
    run = make_run(tp=t, sequence_parallel=sequence and t > 1, attention="unfused", recompute=recompute)
    assert layer_bytes(run) == formula(t, sequence=sequence and t > 1, square=False)


@pytest.mark.parametrize("t", [1, 2, 4, 8])
@pytest.mark.parametrize("sequence", [False, True])
def test_layer_with_full_recompute(make_run: Callable[..., RunSpec], t: int, sequence: bool) -> None:
    run = make_run(
        tp=t, sequence_parallel=sequence and t > 1, recompute=Recompute(granularity="full", modules=())
    )
    assert layer_bytes(run) == 2 * SBH / (t if sequence else 1)


@pytest.mark.parametrize(("pp", "vp"), [(2, 1), (4, 1), (2, 2), (4, 2)])
def test_first_stage_keeps_as_many_layers_as_the_schedule_has_in_flight(
    make_run: Callable[..., RunSpec], pp: int, vp: int
) -> None:
    """Equation 6 and section 4.2.3: L layers for 1F1B, L(1 + (p−1)/(pv)) interleaved."""
    from simulator.memory.activations import Passes
    from simulator.schedule.registry import SCHEDULES

    run = make_run(pp=pp, vp=vp, gpus=pp, global_batch_size=4 * pp)
    plan = plan_run(run)
    passes, alive, most = Passes(plan), 0.0, 0.0
    for action in SCHEDULES[run.schedule].checked_order(pp, plan.microbatches, vp)[0]:
        alive += passes.chunk(action.stage).changes[action.kind][1]
        most = max(most, alive)
    layers = 8 * (1 + (pp - 1) / (pp * vp)) if vp > 1 else 8
    embedding = plan.chunks[0].layers[0].saved_bytes  # its dropout mask
    in_flight = sum(a.stage == 0 for a in SCHEDULES[run.schedule].checked_order(pp, plan.microbatches, vp)[0])
    assert in_flight > 0
    assert most == pytest.approx(layers * layer_bytes(run), rel=embedding * pp * 2 / (8 * layer_bytes(run)))
    assert most >= layers * layer_bytes(run)
