"""``make demo`` and ``make test``: clear about what is missing, and idle when nothing changed."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(checkout, *arguments, **environment):
    command = [shutil.which("make"), *arguments]
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "PYTHON", "MFLAGS"))
    }
    return subprocess.run(
        command, cwd=checkout, env={**kept, **environment}, capture_output=True, text=True, check=False
    )


def interpreter(folder, *, passes, version="Python 3.9.18"):
    """A stand-in for Python that reports a version and passes the first ``passes`` checks of the Makefile."""
    script = folder / "some-python"
    tests = "".join(f"*'{text}'*) exit 0 ;; " for text in ("version_info", "import venv")[:passes])
    script.write_text(f'#!/bin/sh\ncase "$*" in --version) echo {version}; exit 0 ;; {tests}esac\nexit 1\n')
    script.chmod(0o755)
    return script


def made_environment(checkout):
    """A virtual environment as the Makefile leaves it, installed after pyproject.toml was last changed."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / ".path").write_text(f"{checkout.resolve()}\n")
    earlier = time.time() - 100
    for name in ("bin/python", ".installed", ".installed-for-tests"):
        (checkout / ".venv" / name).touch()
    os.utime(checkout / ".venv" / "bin" / "python", (earlier, earlier))
    os.utime(checkout / "pyproject.toml", (earlier, earlier))


@pytest.mark.parametrize("goal", ["demo", "test"])
def test_an_old_python_is_named_with_what_is_needed(checkout, goal):
    old = interpreter(checkout, passes=0)
    ended = make(checkout, goal, f"PYTHON={old}")
    assert ended.returncode != 0
    assert "stepcast needs Python 3.11 or newer" in ended.stderr
    assert "Python 3.9.18" in ended.stderr
    assert f"make PYTHON=/path/to/python3 {goal}" in ended.stderr
    assert not (checkout / ".venv").exists()


def test_a_machine_without_python_is_told_so(checkout):
    tools = checkout / "tools"
    tools.mkdir()
    ended = make(checkout, "demo", PATH=str(tools))
    assert ended.returncode != 0
    assert "found no python3 on the PATH" in ended.stderr


def test_a_python_without_venv_is_told_what_to_install(checkout):
    ended = make(checkout, "demo", f"PYTHON={interpreter(checkout, passes=1)}")
    assert ended.returncode != 0
    assert "lacks the standard modules venv and ensurepip" in ended.stderr
    assert "python3-venv" in ended.stderr


def test_a_half_made_environment_is_not_left_behind(checkout):
    ended = make(checkout, "demo", f"PYTHON={interpreter(checkout, passes=2)}")
    assert ended.returncode != 0
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("goal", ["demo", "test", "check"])
def test_a_second_call_installs_nothing(checkout, goal):
    made_environment(checkout)
    planned = make(checkout, "-n", goal)
    assert planned.returncode == 0
    assert "pip install" not in planned.stdout


@pytest.mark.parametrize("goal", ["demo", "test"])
def test_a_changed_pyproject_installs_again(checkout, goal):
    made_environment(checkout)
    later = time.time() + 100
    os.utime(checkout / "pyproject.toml", (later, later))
    assert "pip install" in make(checkout, "-n", goal).stdout


def test_a_moved_checkout_gets_a_new_environment(checkout, tmp_path_factory):
    made_environment(checkout)
    moved = shutil.copytree(checkout, tmp_path_factory.mktemp("elsewhere") / "copy")
    planned = make(moved, "-n", "demo").stdout
    assert "-m venv --clear" in planned
    assert "pip install" in planned
