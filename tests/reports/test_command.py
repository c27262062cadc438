"""``stepcast run --report`` and ``--plots``: files where asked, a message where that is impossible."""

import json

import pytest

from simulator.cli.app import main

RUN = "llama3-8b-8-h100"


def stepcast(*arguments):
    """Exit status of ``stepcast run``."""
    with pytest.raises(SystemExit) as done:
        main(["run", RUN, *map(str, arguments)])
    return done.value.code


def test_a_report_and_plots_are_written_beside_the_screen(tmp_path, capsys):
    assert not stepcast("--report", tmp_path / "out.html", "--plots", tmp_path / "plots")
    assert "Step time" in capsys.readouterr().out
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / "plots" / "pipeline.svg").is_file()


def test_a_report_leaves_json_as_it_is(tmp_path, capsys):
    assert not stepcast("--json", "-")
    plain = json.loads(capsys.readouterr().out)
    assert not stepcast("--json", "-", "--report", tmp_path / "out.html")
    beside = json.loads(capsys.readouterr().out)
    assert beside.keys() == plain.keys()
    assert beside["step_time_s"] == pytest.approx(plain["step_time_s"], rel=1e-9)


@pytest.mark.parametrize("option", ["--report", "--trace"])
def test_a_missing_folder_is_named(tmp_path, capsys, option):
    assert stepcast(option, tmp_path / "nowhere" / "out.html") == 2
    assert "the folder does not exist" in capsys.readouterr().err


def test_a_file_is_no_folder_for_plots(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert stepcast("--plots", tmp_path / "taken") == 2
    assert "taken" in capsys.readouterr().err
