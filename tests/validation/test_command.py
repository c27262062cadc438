"""``stepcast validate`` from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from simulator.cli.app import main
from simulator.validation.rows import shipped_rows, write_rows

ROWS = ("kort22-tab5-meg-22b-full", "kort22-tab5-meg-22b-seqsel", "sc21-table1-1.7b", "mcore08-strong-96g")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "runs.csv"
    write_rows((row for row in shipped_rows() if row.run_id in ROWS), path)
    return path


def stepcast(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments])
    return int(exit_.value.code or 0)


def test_tables_on_standard_output(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stepcast("validate", "--runs", str(table), "--cross-validate", "--workers", "1") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "kort22" in out and "constant HFU" in out
    assert "fitted without the row's group" in out
    assert "not a score" in out


def test_json_instead_of_tables(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stepcast("validate", "--runs", str(table), "--workers", "1", "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["run_id"] for row in document["rows"]} == set(ROWS[:3])
    assert [row["run_id"] for row in document["not_predicted"]] == [ROWS[3]]
    assert document["overall"]["all"]["per_group"]["groups"] == 2


def test_a_report_and_plots_beside_the_tables(table: Path, tmp_path: Path) -> None:
    page, plots = tmp_path / "page.html", tmp_path / "plots"
    common = ("validate", "--runs", str(table), "--workers", "1", "--cross-validate")
    assert stepcast(*common, "--report", str(page), "--plots", str(plots)) == 0
    text = page.read_text(encoding="utf-8")
    sections = ["headline", "scatter", "errors", "sources", "left-out", "worst"]
    assert re.findall('<section id="(.*?)"', text) == [*sections, "memory", "choices", "not-predicted"]
    assert text.count('class="figure"') == 4
    assert ROWS[0] in text and "recompute full" in text  # a worst row, explained by its recipe
    drawn = {path.name for path in plots.iterdir()}
    assert drawn == {
        f"{name}.{end}" for name in ("scatter", "errors", "left-out", "worst") for end in ("png", "svg")
    }


def test_a_report_of_nothing_says_so(table: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    table.write_text(table.read_text().replace(",high,", ",low,"))
    assert stepcast("validate", "--runs", str(table), "--workers", "1", "--report", str(page)) == 0
    assert "No row of high confidence is predicted." in page.read_text(encoding="utf-8")


def test_a_malformed_table_is_the_users_mistake(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text(table.read_text().replace("high", "sure", 1))
    assert stepcast("validate", "--runs", str(table)) == 2
    assert f"{table}:2: confidence: 'sure'" in capsys.readouterr().err
