"""A CSV file as the schedule of a run: the same step as by name, and refusals that say where and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.cli.app import main
from simulator.engine.replay import DeadlockError
from simulator.schedule.notation import format_action
from simulator.schedule.registry import SCHEDULES
from simulator.simulate import simulate
from simulator.spec.errors import SpecError
from simulator.spec.run import RunSpec

SmallRun = Callable[..., RunSpec]


def written(folder: Path, name: str, p: int, m: int, v: int) -> str:
    orders = SCHEDULES[name].order(p, m, v)
    file = folder / f"{name}.csv"
    file.write_text("".join(",".join(map(format_action, order)) + "\n" for order in orders))
    return str(file)


@pytest.mark.parametrize("name", ["interleaved-1f1b", "zb-v", "dualpipe", "dualpipev"])
def test_a_file_gives_the_step_and_the_memory_of_the_schedule_it_was_written_from(
    small_run: SmallRun, tmp_path: Path, name: str
) -> None:
    v = SCHEDULES[name].natural_v
    by_name = simulate(small_run(name, vp=v))
    by_file = simulate(small_run(written(tmp_path, name, 4, 8, v), vp=v))
    assert by_file.step_time_s == pytest.approx(by_name.step_time_s, rel=1e-12)
    assert by_file.memory == by_name.memory


@pytest.mark.parametrize(
    ("row", "line", "message"),
    [
        ("1F0,1B0,1F1,1B1,1B1", 2, "1B1 is there a second time"),
        ("1F0,1B0,1F1", 2, "input gradient of microbatch 1 on stage 1 is missing"),
        ("1F0,1B0,1F1,1Q1", 2, "'1Q1' is not an action"),
        ("1F1,1B1,1F0,1B0", 1, "deadlock"),
        ("1F0,1B0,1F1,1B1", 0, "a schedule of 2, the run's microbatches"),
    ],
)
def test_an_illegal_file_is_refused_with_its_line(
    small_run: SmallRun, tmp_path: Path, row: str, line: int, message: str
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(f"0F0,0B0,0F1,0B1\n{row}\n")
    with pytest.raises(SpecError, match=message) as caught:
        simulate(small_run(str(file), pp=2, m=4 if "B1" in row and line == 0 else 2))
    assert f"mine.csv{f':{line}' if line else ''}" in str(caught.value)


def test_stages_must_lie_beside_each_other(small_run: SmallRun, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("0F0,0B0\n2F0,2B0\n1F0,1B0\n3F0,3B0\n")
    with pytest.raises(SpecError, match="neighbours"):
        simulate(small_run(str(file), m=1))


def test_a_run_file_names_a_schedule_beside_it(
    small_run: SmallRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, "zb-v", 2, 4, 2)
    run = tmp_path / "run.yaml"
    run.write_text(
        "model: llama3-8b\ncluster: dgx-h100-ndr\ngpus: 8\n"
        "parallelism: {tp: 4, pp: 2, vp: 2, schedule: zb-v.csv}\n"
        "training: {seq_length: 4096, micro_batch_size: 1, global_batch_size: 4}\n"
    )
    with pytest.raises(SystemExit) as caught:
        main(["run", str(run)])
    assert caught.value.code == 0
    assert "zb-v.csv" in capsys.readouterr().out


@st.composite
def legal_orders(draw: st.DrawFn) -> list[list[str]]:
    """Forwards and backwards of a few microbatches, each device free to take any that is ready."""
    devices, microbatches = draw(st.integers(2, 3)), draw(st.integers(1, 3))
    orders: list[list[str]] = [[] for _ in range(devices)]
    done: set[str] = set()

    def ready(device: int, kind: str, k: int) -> bool:
        if kind == "F":
            return device == 0 or f"{device - 1}F{k}" in done
        below = device == devices - 1 or f"{device + 1}B{k}" in done
        return below and f"{device}F{k}" in done

    every = [(d, kind, k) for d in range(devices) for kind in "FB" for k in range(microbatches)]
    while len(done) < len(every):
        left = [each for each in every if "{}{}{}".format(*each) not in done and ready(*each)]
        device, kind, k = draw(st.sampled_from(left))
        orders[device].append(f"{device}{kind}{k}")
        done.add(orders[device][-1])
    return orders


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders=legal_orders(), batched=st.booleans())
def test_messages_that_block_are_refused_exactly_where_they_wait_for_ever(
    small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory, orders: list[list[str]], batched: bool
) -> None:
    file = tmp_path_factory.mktemp("orders") / "mine.csv"
    file.write_text("".join(",".join(order) + "\n" for order in orders))
    m = len(orders[0]) // 2
    habits = {"overlap_p2p": False, "batch_p2p": batched}
    run = small_run(str(file), pp=len(orders), m=m, dp=1, stage_split="even", **habits)
    try:
        simulate(run)
    except SpecError as error:
        assert "for ever: device" in str(error)
        assert "overlap_p2p" in str(error)
        unchecked = patch("simulator.preparation.user_schedule.waiting_for_ever", return_value={})
        with unchecked, pytest.raises(DeadlockError):
            simulate(run)


def test_messages_of_pairs_and_of_two_directions_do_not_block(small_run: SmallRun, tmp_path: Path) -> None:
    file = written(tmp_path, "dualpipe", 4, 8, 1)
    with pytest.raises(SpecError, match="overlap_p2p is false"):
        simulate(small_run(file, overlap_p2p=False))
