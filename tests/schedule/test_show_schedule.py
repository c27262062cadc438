"""``stepcast show schedule``: figures, actions, charts, and messages for wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from simulator.cli import show_schedule
from simulator.schedule.registry import SCHEDULES
from simulator.spec.errors import SpecError

app = typer.Typer()
app.command()(show_schedule.schedule)
app.command()(show_schedule.schedules)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def facts(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("schedule", *arguments, "--json", "-"))
    return found


def test_json_has_the_figures_and_the_actions() -> None:
    found = facts("zb-h1", "-p", "2", "-m", "2", "--times", "1,1.2,0.8")
    assert found["step_time"] == pytest.approx(7.4)
    assert found["bubble"] == pytest.approx(1.4)
    assert found["peak_activations"] == [2, 2]
    assert found["actions"] == ["0F0 0F1 0I0 0W0 0I1 0W1", "1F0 1I0 1F1 1I1 1W0 1W1"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_shown_and_listed(name: str) -> None:
    assert "step time:" in run("schedule", name, "-p", "4", "-m", "8")
    assert name in run("schedules")


def test_the_fourth_time_is_a_pair_that_overlaps() -> None:
    joint = facts("dualpipev", "-p", "4", "-m", "12", "--times", "1,1,1")
    faster = facts("dualpipev", "-p", "4", "-m", "12", "--times", "1,1,1,2.5")
    assert faster["step_time"] < joint["step_time"]
    assert joint == facts("dualpipev", "-p", "4", "-m", "12", "--times", "1,1,1,3") | {
        "times": joint["times"]
    }


def test_blocks_line_up_in_plain_text() -> None:
    lines = run("schedule", "1f1b", "-p", "2", "-m", "2").splitlines()
    assert lines[2:4] == ["0 F0 F1 ······B0    ···B1    ", "1 ···F0 B0    F1 B1    ······"]


def test_the_automatic_schedule_keeps_to_its_memory() -> None:
    found = facts("automatic", "-p", "4", "-m", "8", "--times", "1,1.2,0.8", "--memory", "3")
    assert max(found["peak_activations"]) <= 3 * found["v"]


def test_a_csv_file_is_a_schedule(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    found = facts(str(file))
    assert (found["p"], found["m"], found["step_time"]) == (2, 2, 9.0)


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"0F0,0B0\n", ("-p", "2"), "has 1"),
        (b"0F0,0B0\n", ("-m", "3"), "has 1"),
        (b"caf\xe9\n", (), "not UTF-8"),
        (b"\0", (), "binary"),
    ],
)
def test_a_csv_file_is_text_of_the_size_that_is_asked_for(
    tmp_path: Path, content: bytes, arguments: tuple[str, ...], message: str
) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        run("schedule", str(file), *arguments)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_plot_is_written(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"chart.{ending}"
    run("schedule", "dualpipe", "-p", "4", "-m", "8", "--plot", str(file))
    assert file.stat().st_size > 10_000
    assert file.read_bytes().startswith(b"\x89PNG" if ending == "png" else b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("zb-h3",), SpecError, "zb-h2"),
        (("1f1b", "--times", "1,2"), SpecError, "F,B,W"),
        (("1f1b", "--times", "1,-1,1"), SpecError, "numbers from 0"),
        (("1f1b", "--times", "1,inf,1"), SpecError, "numbers from 0"),
        (("1f1b", "--p2p", "1e308"), SpecError, "--p2p"),
        (("1f1b", "--memory", "2"), SpecError, "belongs to the schedule automatic"),
        (("automatic", "--memory", "nan"), SpecError, "above 0"),
        (("automatic", "-v", "0"), SpecError, "-v: 0"),
        (("1f1b", "-p", "1000000"), SpecError, "8,000,000 chunk-microbatches"),
        (("nowhere.csv",), SpecError, "no such file"),
        (("1f1b", "-v", "2"), ValueError, "interleaved-1f1b"),
        (("dualpipe", "-p", "5"), ValueError, "even number of devices"),
        (("dualpipev", "-p", "4", "-m", "6"), ValueError, "at least 2p = 8"),
        (("1f1b", "--plot", "chart.doc"), ValueError, "must end in .png"),
    ],
)
def test_wrong_input_is_explained(arguments: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run("schedule", *arguments)
