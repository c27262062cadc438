"""A CSV file as the schedule of a run: the same step as by name, and refusals that say where and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.cli.app import main
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
