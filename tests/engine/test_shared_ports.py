"""Inside a scale-up domain TP, EP and DP share the ports of GPUs: folding loses nothing, sharing shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from simulator.simulate import simulate
from simulator.spec.load import load_cluster, load_run
from simulator.spec.run import RunSpec, Simulation


def in_one_rack(tp: int, pp: int, dp: int, *, zero: int = 1, ep: int = 1, layers: int = 4) -> RunSpec:
    run = load_run("mixtral-8x7b-64-h100" if ep > 1 else "llama3-8b-8-h100")
    return replace(
        run,
        cluster=load_cluster("gb200-nvl72"),
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=layers),
        parallelism=replace(run.parallelism, tp=tp, pp=pp, dp=dp, zero=zero, ep=ep, vp=1),
        training=replace(run.training, global_batch_size=2 * dp, micro_batch_size=1),
        runtime=replace(run.runtime, ddp_bucket_elements=1e8),
    )


@pytest.mark.parametrize(
    "run",
    [
        in_one_rack(4, 1, 4),
        in_one_rack(2, 2, 4),
        in_one_rack(2, 1, 4, zero=3),
        in_one_rack(8, 1, 8),
        in_one_rack(1, 1, 16, ep=8),
    ],
    ids=["tp4-dp4", "tp2-pp2-dp4", "fsdp", "64-ranks", "experts"],
)
def test_classes_and_blocks_give_the_step_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], run: RunSpec
) -> None:
    loses_nothing_by_folding(run)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (in_one_rack(4, 1, 4), "gradients.grad_reduce_scatter"),
        (in_one_rack(1, 1, 16, ep=8), "dispatch.all_to_all"),
    ],
    ids=["reduction", "dispatch"],
)
def test_what_runs_beside_another_group_takes_longer_than_alone(run: RunSpec, name: str) -> None:
    events = [event for event in simulate(run, timeline=True).timeline if event.name == name]
    lengths = [event.end_s - event.start_s for event in events]
    assert max(lengths) > 1.15 * min(lengths)


def test_a_message_inside_a_node_gets_half_of_a_port_beside_a_reduction_that_would_fill_it() -> None:
    run = load_run("llama3-8b-8-h100")
    run = replace(
        run,
        model=replace(run.model, num_hidden_layers=4),
        parallelism=replace(run.parallelism, tp=1, pp=2, dp=4, zero=1),
        training=replace(run.training, global_batch_size=16, micro_batch_size=1),
        runtime=replace(run.runtime, overlap_p2p=True, ddp_bucket_elements=1e8),
    )
    lengths = [e.end_s - e.start_s for e in simulate(run, timeline=True).timeline if e.name == "send"]
    size = run.training.seq_length * run.model.hidden_size * 2
    port = run.cluster.scale_up.link.bandwidth
    assert min(lengths) < size / (0.6 * port)
    assert max(lengths) == pytest.approx(2 * size / port)


def test_a_picture_of_link_use_conserves_what_blocks_carry() -> None:
    run = in_one_rack(4, 1, 1)
    carried = {}
    for detail in ("block", "operator"):
        result = simulate(replace(run, simulation=Simulation(detail=detail)), timeline=True)
        assert result.details is not None
        (ports,) = (c for c in result.details.counters if c.name == "scale-up out")
        until = [*ports.times_s[1:], result.step_time_s]
        carried[detail] = sum(
            (end - begin) * rate for begin, end, rate in zip(ports.times_s, until, ports.values, strict=True)
        )
    assert carried["block"] == pytest.approx(carried["operator"], rel=1e-6)
