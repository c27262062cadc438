"""``stepcast sweep`` from outside: its JSON, its refusals, and what a sudden end leaves behind."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from simulator.cli.app import main

ROOT = Path(__file__).parents[2]
LONG = (
    *("--set", "training.recompute=[{granularity: none}, {granularity: full}]"),
    *("--set", "runtime.overlap_grad_reduce=[true, false]"),
)
LISTEN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # jobs behind a shell do not
)
COMMAND = (sys.executable, "-c", f"{LISTEN}; from simulator.cli.app import main; main()", "sweep")


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["sweep", *map(str, arguments), "--workers", "1"])
        return ended.value.code, *capsys.readouterr()

    return call


def count(directory: Path) -> int:
    path = directory / "results.sqlite"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as database:
        try:
            return int(database.execute("select count(*) from evaluation").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # not there yet


def ended_early(
    arguments: list[str], directory: Path, how: signal.Signals
) -> subprocess.CompletedProcess[str]:
    """A sweep that gets a signal after a few evaluations."""
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while count(directory) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def without_counts(outcome: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in outcome.items() if key != "evaluated"}


def test_json_has_the_stable_keys(run, sweep_file):
    code, out, err = run(sweep_file(), "--json", "-")
    outcome = json.loads(out)
    assert (code, err) == (0, "")
    assert {"best", "evaluated", "evaluated_total", "illegal", "infeasible"} <= set(outcome)
    assert outcome["best"]["step_time_s"] > 0
    assert outcome["best"]["layout"]["tp"] in (1, 2, 4)
    assert outcome["illegal"]["shallow"] > 0
    assert outcome["evaluated"] == outcome["evaluated_total"] == outcome["legal"]


def test_the_table_ranks_and_says_why_the_others_are_slower(run, sweep_file):
    code, out, _ = run(sweep_file(), "--top", 5)
    assert code == 0
    assert "because of" in out
    assert "exposed tp +" in out


def test_a_layout_that_does_not_fit_is_explained_with_its_needs_its_time_and_what_helps(
    run, sweep_file, tmp_path
):
    asked = (sweep_file(), "--set", "model=llama3-70b", "--explain", 1)
    code, out, _ = run(*asked, "--json", tmp_path / "explained.json", "-o", tmp_path / "out")
    explained = json.loads((tmp_path / "explained.json").read_text())["explained"]
    assert (code, explained["status"], explained["message"]) == (0, "infeasible", "memory")
    assert explained["step_time_s"] > 0
    assert "of 79.6 GiB" in out
    assert "To make it fit" in out
    with closing(sqlite3.connect(tmp_path / "out" / "results.sqlite")) as database:
        kept = database.execute("select step_time_s from evaluation where number = 1").fetchone()
    assert kept == (0.0,)  # as a whole sweep would keep it


def test_every_figure_is_a_png_and_an_svg(run, sweep_file, tmp_path):
    code, _, _ = run(sweep_file(), "--plots", tmp_path / "plots")
    assert code == 0
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"{f}{s}" for f in ("losses", "pareto", "map", "scaling") for s in (".png", ".svg")}


def test_resuming_a_finished_sweep_evaluates_nothing(run, sweep_file, tmp_path):
    directory = tmp_path / "out"
    _, first, _ = run(sweep_file(), "-o", directory, "--json", "-")
    code, out, err = run(sweep_file(), "-o", directory, "--json", "-")
    assert code == 2
    assert out == ""
    assert "--resume" in err
    _, again, _ = run(sweep_file(), "-o", directory, "--resume", "--json", "-")
    assert json.loads(again)["evaluated"] == 0
    assert without_counts(json.loads(again)) == without_counts(json.loads(first))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_and_resumed_gives_the_same_and_repeats_nothing(run, sweep_file, tmp_path, workers):
    whole = json.loads(run(sweep_file(), *LONG, "--json", "-")[1])
    directory = tmp_path / "out"
    arguments = [str(sweep_file()), *LONG, "-o", str(directory), "--workers", workers]
    killed = ended_early(arguments, directory, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(directory / "results.sqlite")) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    before = count(directory)
    assert 0 < before < whole["evaluated"]
    resumed = json.loads(run(sweep_file(), *LONG, "-o", directory, "--resume", "--json", "-")[1])
    assert resumed["evaluated"] == whole["evaluated"] - before
    assert without_counts(resumed) == without_counts(whole)


@pytest.mark.slow
def test_an_interrupted_sweep_keeps_and_ranks_what_it_has(sweep_file, tmp_path):
    directory = tmp_path / "out"
    arguments = [str(sweep_file()), *LONG, "-o", str(directory), "--workers", "1"]
    ended = ended_early(arguments, directory, signal.SIGINT)
    assert ended.returncode == 130
    assert "interrupted: --resume continues" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert count(directory) >= 3


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["gpus=[]"], "empty list"),
        (["parallelism.tq=2"], "unknown key"),
        (["constraints.none=tp > 99"], "none of the"),
        (["search=fast"], "exhaustive"),
        (
            ["parallelism={tp: {range: [1, 9999]}, pp: {range: [1, 9999]}, cp: {range: [1, 10]}}"],
            "combinations",
        ),
    ],
)
def test_bad_files_end_with_status_2_and_a_message(run, sweep_file, overrides, says):
    code, out, err = run(sweep_file(), *(part for text in overrides for part in ("--set", text)))
    assert (code, out) == (2, "")
    assert says in err
    assert "fault of stepcast" not in err


def test_what_is_resumed_must_be_named(run, sweep_file):
    code, out, err = run(sweep_file(), "--resume")
    assert (code, out) == (2, "")
    assert "needs -o DIR" in err
