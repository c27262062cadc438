"""Steps in one queue give the step, and the breakdown, of a process for every stream."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.engine import express
from simulator.engine.quiet import QuietDevice
from simulator.engine.replay import DeadlockError, paused_collector
from simulator.engine.senders import Send
from simulator.engine.step import StepReplay
from simulator.schedule.registry import SCHEDULES
from simulator.simulation import Simulation
from simulator.spec.cluster import Tier
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec

seconds = st.floats(0.01, 10.0)
SYNCHRONOUS = [name for name, schedule in SCHEDULES.items() if schedule.synchronous]


# from how many steps on, and how many at once, they are walked through in one loop
stretches = st.sampled_from(
    [
        {"LEAST": 1, "TOGETHER": 1, "FARTHEST": 16},
        {"LEAST": 1, "TOGETHER": 1, "FARTHEST": 1000},
        {"LEAST": 24},
    ]
)


def same(quick: StepReplay, slow: StepReplay) -> None:
    assert quick.seconds == pytest.approx(slow.seconds, rel=1e-9)
    for ours, theirs in zip(quick.breakdowns, slow.breakdowns, strict=True):
        for category in ours | theirs:
            assert ours.get(category, 0.0) == pytest.approx(
                theirs.get(category, 0.0), abs=1e-9 * slow.seconds
            ), category


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    p=st.integers(1, 4),
    m=st.integers(1, 3),
    F=seconds,
    B=seconds,
    W=seconds,
    message=st.floats(0.0, 5.0),
    overlap=st.booleans(),
    stretch=stretches,
    fold=st.booleans(),
)
@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_every_schedule(pipeline, name, p, m, F, B, W, message, overlap, stretch, fold):
    schedule = SCHEDULES[name]
    v = 2 if schedule.natural_v > 1 else 1
    m *= 2 * p
    if schedule.check(p, m, v):
        return

    def step(quick: bool) -> StepReplay:
        return pipeline(
            name,
            p,
            m,
            v,
            (F, B, W),
            message_s=message,
            overlap_p2p=overlap,
            fold_steady_state=quick and fold,
            quiet_steps=quick,
        )

    try:
        slow = step(False)
    except DeadlockError:  # blocking exchanges do not suit every schedule
        with pytest.raises(DeadlockError):
            step(True)
        return
    with patch.multiple(express, **stretch):
        same(step(True), slow)


def crowded(
    layout: tuple[int, int, int, int], network: tuple[int, int, float], zero: int, flags: Sequence[bool]
) -> RunSpec:
    """A run of some TP, PP, VP and DP on nodes of a size, with so many NICs, below oversubscribed spines."""
    run = load_run("llama3-8b-8-h100")
    (tp, pp, vp, dp), (size, nics, over) = layout, network
    tiers = (Tier(name="leaf", nodes=2), Tier(name="spine", oversubscription=over))
    return replace(
        run,
        gpus=tp * pp * dp,
        cluster=replace(
            run.cluster,
            gpus_per_node=size,
            scale_up=replace(run.cluster.scale_up, domain_size=size),
            scale_out=replace(run.cluster.scale_out, nics_per_node=nics, tiers=tiers),
        ),
        model=replace(run.model, num_hidden_layers=16),
        parallelism=replace(
            run.parallelism,
            tp=tp,
            pp=pp,
            vp=vp,
            dp=dp,
            zero=zero,
            sequence_parallel=flags[4],
            schedule="",
        ),
        training=replace(run.training, global_batch_size=2 * pp * dp, micro_batch_size=1),
        runtime=replace(
            run.runtime,
            overlap_grad_reduce=flags[0],
            overlap_param_gather=flags[1],
            overlap_p2p=flags[2],
            overlap_p2p_warmup_flush=flags[3],
            scatter_gather=flags[5],
            ddp_bucket_elements=1e8,
        ),
    )


@st.composite
def crowded_worlds(draw: st.DrawFn) -> RunSpec:
    """Pipelines on slow networks, whose messages meet each other and data-parallel traffic."""
    layout = draw(st.sampled_from([(1, 2, 1), (4, 4, 1), (8, 2, 2), (8, 4, 2), (2, 4, 4)]))
    return crowded(
        (*layout, draw(st.sampled_from([2, 4]))),
        draw(st.sampled_from([(8, 8, 1.0), (8, 1, 1.0), (2, 1, 16.0), (1, 1, 4.0)])),
        draw(st.sampled_from([0, 1, 2])),
        draw(st.tuples(*[st.booleans()] * 6)),
    )


@settings(max_examples=25, deadline=None)
@given(run=crowded_worlds(), stretch=stretches)
def test_messages_that_meet_others(run: RunSpec, stretch: dict[str, int]) -> None:
    with patch.multiple(express, **stretch):
        quick = Simulation(run).step
    same(quick, Simulation(run, whole=True).step)


def test_most_steps_of_a_long_schedule_are_walked_through_in_one_loop() -> None:
    run = crowded((2, 4, 2, 2), (8, 8, 1.0), 1, [False, False, True, True, True, False])
    run = replace(run, training=replace(run.training, global_batch_size=256))
    with patch.object(QuietDevice, "fire", autospec=True, side_effect=QuietDevice.fire) as fired:
        quick = Simulation(run, fold=False).step
    actions = 4 * 2 * 2 * (256 // 2)  # devices, chunks, passes, microbatches
    assert fired.call_count < actions / 4
    same(quick, Simulation(run, whole=True).step)


@pytest.mark.parametrize(
    ("tp", "network", "reduces_early"),
    [(8, (2, 1, 16.0), False), (2, (8, 8, 1.0), True)],
    ids=["of uplinks", "of ports, on which messages end as they begin"],
)
def test_gathers_of_scattered_messages_share_links(tp, network, reduces_early) -> None:
    run = crowded((tp, 2, 2, 2), network, 0, [reduces_early, False, True, True, False, True])
    same(Simulation(run).step, Simulation(run, whole=True).step)


def kept_alive() -> int:
    return sum(isinstance(each, (QuietDevice, Send)) for each in gc.get_objects())


@pytest.mark.parametrize("overlap", [False, True])
def test_a_replay_that_is_dropped_leaves_no_cycles_behind(overlap):
    run = crowded((8, 4, 2, 2), (8, 1, 1.0), 1, [True, True, overlap, True, True, True])
    gc.collect()
    before = kept_alive()
    with paused_collector():
        step = Simulation(run).step
        assert kept_alive() > before
        del step
        assert kept_alive() == before
