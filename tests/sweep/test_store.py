"""What is kept, and when a directory is refused."""

import sqlite3
from dataclasses import replace

import pytest

from simulator.spec.errors import SpecError
from simulator.sweep.evaluation import Evaluation
from simulator.sweep.store import DATABASE, Store

DONE = Evaluation(
    number=3, labels=(1, {"granularity": "none"}), status="ok", step_time_s=0.5, breakdown_s={"gemm": 0.5}
)


def test_evaluations_come_back_as_they_were(tmp_path):
    with Store(tmp_path / "out", "a", resume=False) as store:
        store.add([DONE])
    with Store(tmp_path / "out", "a", resume=True) as store:
        assert list(store.evaluations()) == [DONE]
        assert store.numbers() == {3}


def test_a_directory_with_content_needs_resume(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SpecError, match=r"(?s)has content.*--resume"):
        Store(tmp_path, "a", resume=False)
    with pytest.raises(SpecError, match="no sweep to resume"):
        Store(tmp_path, "a", resume=True)


def test_a_new_directory_may_be_resumed(tmp_path):
    with Store(tmp_path / "new", "a", resume=True) as store:
        assert store.numbers() == set()


def test_results_of_another_sweep_are_refused(tmp_path):
    Store(tmp_path / "out", "a", resume=False).close()
    with pytest.raises(SpecError, match="another sweep file"):
        Store(tmp_path / "out", "b", resume=True)


def test_results_of_another_version_are_refused(tmp_path, monkeypatch):
    Store(tmp_path / "out", "a", resume=False).close()
    monkeypatch.setattr("simulator.sweep.store.own_version", lambda: "99.0")
    with pytest.raises(SpecError, match=r"another version of stepcast.*99\.0"):
        Store(tmp_path / "out", "a", resume=True)


def test_two_sweeps_in_one_directory_are_refused(tmp_path):
    first = Store(tmp_path / "out", "a", resume=False)
    with pytest.raises(SpecError, match="another sweep is running"):
        Store(tmp_path / "out", "a", resume=True)
    first.close()
    Store(tmp_path / "out", "a", resume=True).close()


def test_a_file_is_no_directory_and_text_is_no_database(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="is a file"):
        Store(tmp_path / "file", "a", resume=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / DATABASE).write_text("not a database, but long enough to look at", encoding="utf-8")
    with pytest.raises(SpecError, match="cannot be read as a database"):
        Store(tmp_path / "out", "a", resume=True)


def test_an_evaluation_is_never_kept_twice(tmp_path):
    with Store(None, "a", resume=False) as store:
        store.add([DONE])
        with pytest.raises(sqlite3.IntegrityError):
            store.add([DONE])


def test_a_full_disk_is_told_of_and_what_was_finished_is_kept(tmp_path):
    with Store(tmp_path / "out", "a", resume=False) as store:
        store.add([DONE])
        store._database.execute("pragma max_page_count = 1")  # no more than it has
        many = [replace(DONE, number=number) for number in range(10, 1000)]
        with pytest.raises(SpecError, match=r"(?s)out.*disk is full.*--resume"):
            store.add(many)
        assert store.numbers() == {3}
