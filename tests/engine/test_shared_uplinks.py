"""Oversubscribed switches: ranks and stages share their uplinks, folded as well as one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine import classes
from simulator.engine.replay import replay
from simulator.engine.tasks import Flow, Leaving, Task
from simulator.engine.uplinks import on_uplinks, paths_of_classes, paths_of_ranks
from simulator.network.uplinks import Uplinks
from simulator.simulate import simulate
from simulator.spec.cluster import Tier
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec, Simulation

GPUS_PER_NODE = 2


def on_leaves(
    run: RunSpec, nodes: int, oversubscription: float, *, tp: int, pp: int, dp: int, ep: int = 1
) -> RunSpec:
    """A few layers on small nodes, so many of them below a leaf switch."""
    tiers = (Tier(name="leaf", nodes=nodes), Tier(name="spine", oversubscription=oversubscription))
    cluster = replace(
        run.cluster,
        gpus_per_node=GPUS_PER_NODE,
        scale_up=replace(run.cluster.scale_up, domain_size=GPUS_PER_NODE),
        scale_out=replace(run.cluster.scale_out, nics_per_node=GPUS_PER_NODE, tiers=tiers),
    )
    return replace(
        run,
        cluster=cluster,
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=4),
        parallelism=replace(run.parallelism, tp=tp, pp=pp, dp=dp, ep=ep, vp=1, zero=1, schedule=""),
        training=replace(run.training, global_batch_size=2 * pp * dp, micro_batch_size=1),
        runtime=replace(run.runtime, overlap_p2p=True, ddp_bucket_elements=1e8),
    )


@st.composite
def regular_worlds(draw: st.DrawFn) -> RunSpec:
    """Whose stages fill leaves of their own, or whose leaves hold whole replicas."""
    tp = draw(st.sampled_from([1, 2]))
    pp = draw(st.sampled_from([1, 2, 4]))
    dp = draw(st.sampled_from([d for d in (4, 8, 16) if d * tp * pp <= 64]))
    zero = draw(st.sampled_from([1, 3]))
    over = draw(st.sampled_from([2.0, 4.0, 16.0]))
    apart = draw(st.booleans())
    unit = tp if apart else tp * pp
    fits = [n for n in (1, 2, 4, 8) if n * GPUS_PER_NODE % unit == 0]
    nodes = draw(st.sampled_from([n for n in fits if tp * dp * (1 if apart else pp) % (n * 2) == 0]))
    run = on_leaves(load_run("llama3-8b-8-h100"), nodes, over, tp=tp, pp=pp, dp=dp)
    order = "tp-cp-ep-dp-pp" if apart else "tp-cp-ep-pp-dp"
    return replace(
        run,
        parallelism=replace(run.parallelism, zero=zero),
        runtime=replace(run.runtime, rank_order=order),
    )


@settings(max_examples=8, deadline=None)
@given(run=regular_worlds())
def test_classes_and_blocks_give_the_step_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], run: RunSpec
) -> None:
    loses_nothing_by_folding(run)


@pytest.mark.parametrize("shape", [{"pp": 1, "dp": 16, "ep": 8}, {"pp": 2, "dp": 8, "ep": 4}])
def test_experts_and_gradients_share_uplinks_folded_or_not(
    loses_nothing_by_folding: Callable[[RunSpec], None], shape: dict[str, int]
) -> None:
    loses_nothing_by_folding(on_leaves(load_run("mixtral-8x7b-64-h100"), 2, 4.0, tp=1, **shape))


@pytest.mark.parametrize(("nodes", "tp", "dp", "order"), [(3, 1, 8, "dp-pp"), (5, 2, 8, "pp-dp")])
def test_replicas_under_unlike_switches_are_classes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, nodes: int, tp: int, dp: int, order: str
) -> None:
    """Leaves of three nodes under stages of four, and of five under replicas of four."""
    run = on_leaves(load_run("llama3-8b-8-h100"), nodes, 16.0, tp=tp, pp=4, dp=dp)
    run = replace(run, runtime=replace(run.runtime, rank_order=f"tp-cp-ep-{order}"))
    every = simulate(replace(run, simulation=Simulation(ranks="all"))).step_time_s
    assert simulate(run).step_time_s == pytest.approx(every, rel=1e-9)
    monkeypatch.setattr(classes, "MOST", 1)  # one stands for all, at the pace of the slowest
    assert every != simulate(run).step_time_s == pytest.approx(every, rel=0.02)


def test_messages_and_reductions_that_leave_a_leaf_together_share_its_uplinks() -> None:
    """Alone messages fill a quarter of the NICs, and rings of two nodes to a leaf half of them: they fit.

    On the uplinks they do not: r + r/2 = 1/4 leaves messages 1/6 of a NIC instead of 1/4.
    """
    run = on_leaves(load_run("llama3-8b-8-h100"), 2, 4.0, tp=1, pp=4, dp=8)
    lengths = [e.end_s - e.start_s for e in simulate(run, timeline=True).timeline if e.name == "send"]
    assert max(lengths) == pytest.approx(1.5 * min(lengths), rel=0.01)


def test_pictures_show_the_uplinks_above_each_stage_folded_or_not() -> None:
    run = on_leaves(load_run("llama3-8b-8-h100"), 2, 4.0, tp=1, pp=2, dp=8)
    shown = []
    for ranks in ("classes", "all"):
        result = simulate(replace(run, simulation=Simulation(ranks=ranks)), timeline=True)
        assert result.details is not None
        shown.append([c for c in result.details.counters if c.name.startswith("uplinks to spine")])
    folded, whole = shown
    assert {(c.name.split()[-1], c.device) for c in folded} == {(d, i) for d in ("in", "out") for i in (0, 1)}
    for one, other in zip(folded, whole, strict=True):
        assert 0.9 * one.capacity < max(one.values) <= one.capacity * (1 + 1e-9)
        assert max(one.values) == pytest.approx(max(other.values))


def test_full_bisection_adds_no_link() -> None:
    run = on_leaves(load_run("llama3-8b-8-h100"), 2, 1.0, tp=1, pp=2, dp=8)
    flat = replace(run.cluster.scale_out, tiers=(Tier(name="leaf"),))
    alone = replace(run, cluster=replace(run.cluster, scale_out=flat))
    assert simulate(run).step_time_s == simulate(alone).step_time_s


def uplinks(places: list[list[int]], bandwidth: float = 1.0) -> Uplinks:
    return Uplinks("up", 1, bandwidth, np.array(places))


def sends(*shares: float, rate: float, seconds: float = 3.0) -> dict[str, list[Task]]:
    """A stream for each transfer of one rank."""
    return {
        f"stream {i}": [
            Task("send", "send", seconds, flow=Flow((("nic", i),), rate, (), (Leaving(0, "up", share),)))
        ]
        for i, share in enumerate(shares)
    }


CAPACITIES = {"nic": 8.0, "up out": 1.0, "up in": 1.0}


def ends(ranks: dict[int, dict[str, list[Task]]], up: Uplinks, *, folded: bool) -> list[float]:
    paths = paths_of_classes([up], np.zeros(len(up.switch[0]), dtype=int)) if folded else paths_of_ranks([up])
    done = replay(on_uplinks(ranks, paths, CAPACITIES), CAPACITIES)
    return [records[-1].end for records in done.records.values()]


def test_two_transfers_that_each_fill_an_uplink_take_twice_as_long() -> None:
    """Two devices of two ranks below one switch; every rank sends out half of what its NIC carries."""
    up = uplinks([[0, 0], [0, 0]])
    one = sends(0.5, 0.5, rate=2.0)
    folded = ends({0: one, 1: one}, up, folded=True)
    whole = ends(dict.fromkeys(range(4), one), up, folded=False)
    assert folded == [6.0] * 4
    assert whole == [6.0] * 8


def test_what_a_lone_device_leaves_of_an_uplink_is_anothers() -> None:
    """One device sends a third of what an uplink carries, the other would like all of it."""
    up = uplinks([[0], [0], [0], [0], [0], [0]])
    quiet, loud = sends(1.0, rate=2.0, seconds=9.0), sends(1.0, rate=6.0)
    # the loud one alone is as fast as the uplink of six ranks; beside the quiet one it gets 4 of 6
    assert ends({0: quiet, 1: loud}, up, folded=True) == pytest.approx([9.0, 4.5])


def test_bytes_over_uplinks_are_conserved() -> None:
    up = uplinks([[0, 1], [0, 1]])
    ranks = {0: sends(0.5, 1.0, rate=1.5, seconds=2.0), 1: sends(0.25, rate=2.0, seconds=5.0)}
    moved = 0.5 * (1.5 * 2.0 * 1.5 + 2.0 * 5.0 * 0.25)  # half of the ranks below are of each device
    assert moved <= max(ends(ranks, up, folded=True)) * 1.0
