"""ZeRO-Offload and ZeRO-Infinity: what leaves the device, what it costs, what overlaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest

from simulator.cost.kernels import HOST_UPDATE_EFFICIENCY
from simulator.partition.plan import plan_run
from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec
from simulator.spec.sharding import StateOffload

NVME = 25e9
HOMES = [
    (2, "cpu", "device"),
    (3, "cpu", "device"),
    (3, "cpu", "cpu"),
    (2, "nvme", "device"),
    (3, "nvme", "nvme"),
]


def offloaded(zero: int, optimizer: str, parameters: str = "device", *, gpus: int = 8) -> RunSpec:
    run = load_run("llama3-8b-8-h100")
    cluster = replace(run.cluster, host=replace(run.cluster.host, nvme_bandwidth=NVME))
    home = StateOffload(optimizer=optimizer, parameters=parameters)  # type: ignore[arg-type]
    layout = replace(run.parallelism, tp=1, dp=gpus, zero=zero, sequence_parallel=None, offload=home)
    training = replace(run.training, global_batch_size=2 * gpus, micro_batch_size=1)
    return replace(run, cluster=cluster, gpus=gpus, parallelism=layout, training=training)


def seconds_by_name(run: RunSpec) -> dict[str, float]:
    spent: defaultdict[str, float] = defaultdict(float)
    for event in simulate(run, timeline=True).timeline:
        spent[event.name] += event.end_s - event.start_s
    return spent


@pytest.mark.parametrize(("zero", "optimizer", "parameters"), HOMES)
@pytest.mark.parametrize("gpus", [1, 8])
def test_classes_and_blocks_give_the_step_time_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], zero: int, optimizer: str, parameters: str, gpus: int
) -> None:
    loses_nothing_by_folding(offloaded(zero, optimizer, parameters, gpus=gpus))


@pytest.mark.parametrize("gpus", [1, 8])
def test_the_host_updates_a_shard_at_its_memory_bandwidth(gpus: int) -> None:
    """30 bytes per parameter with fp32 gradients; the node's ranks share its memory."""
    run = offloaded(2, "cpu", gpus=gpus)
    shard = sum(chunk.parameters for chunk in plan_run(run).chunks) / gpus
    rate = HOST_UPDATE_EFFICIENCY * run.cluster.host.memory_bandwidth / gpus
    assert seconds_by_name(run)["host_optimizer"] == pytest.approx(30 * shard / rate)


def test_states_on_nvme_are_read_and_written_once_beside_each_other() -> None:
    spent = seconds_by_name(offloaded(2, "nvme"))
    shard = sum(chunk.parameters for chunk in plan_run(offloaded(2, "nvme")).chunks) / 8
    for way in ("read", "write"):
        assert spent[f"states.nvme_{way}"] > 12 * shard / (NVME / 8)
    outside = simulate(offloaded(2, "nvme")).step_time_s - simulate(offloaded(2, "device")).step_time_s
    in_turn = spent["states.nvme_read"] + spent["states.nvme_write"] + spent["host_optimizer"]
    assert outside < 0.8 * in_turn


def test_gradients_leave_beside_the_backward() -> None:
    run = offloaded(2, "cpu", gpus=1)
    spent, step = seconds_by_name(run), simulate(run)
    assert step.breakdown_s["copy"] < 0.5 * (spent["gradients.offload"] + spent["weights.reload"])


def test_parameters_on_the_host_are_fetched_for_every_gather() -> None:
    events = simulate(offloaded(3, "cpu", "cpu"), timeline=True).timeline
    fetched = [e for e in events if e.name == "weights.fetch"]
    gathered = [e for e in events if e.name == "unit.param_all_gather"]
    assert len(fetched) == len(gathered) == 2 * (32 + 32 + 2)
    assert all(f.end_s <= g.start_s for f, g in zip(fetched, gathered, strict=True))


def test_memory_falls_with_every_home_outside_the_device() -> None:
    peaks = [
        simulate(offloaded(*home)).memory["peak_bytes"]
        for home in [(3, "device"), (3, "cpu"), (3, "nvme", "nvme")]
    ]
    assert peaks[0] > peaks[1] >= peaks[2]
    stage = simulate(offloaded(2, "cpu")).memory["stages"][0]  # type: ignore[index]
    assert stage["optimizer"] == 0.0
