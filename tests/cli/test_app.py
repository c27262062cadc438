"""The command line as a program: exit codes, one message per mistake, tracebacks only when asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from simulator.cli.app import Commands, app, main
from simulator.spec.errors import Problem, SpecError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_debugging(monkeypatch):
    monkeypatch.delenv("STEPCAST_DEBUG", raising=False)


@pytest.fixture
def stepcast(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        code = ended.value.code
        return 0 if code is None else code, *capsys.readouterr()

    return call


@pytest.fixture
def command(monkeypatch):
    """Makes ``stepcast attempt`` run a function."""

    def register(function):
        module = type(sys)("attempts")
        module.app = typer.Typer()
        module.app.command()(function)
        monkeypatch.setitem(sys.modules, "attempts", module)
        monkeypatch.setitem(Commands.table, "attempt", "attempts")

    return register


def ours(statement):
    """A function of the simulator's own that runs a statement."""
    scope = {"__name__": "simulator.example"}
    exec(f"def attempt() -> None:\n    {statement}", scope)
    return scope["attempt"]


def test_version_is_printed(stepcast):
    code, out, err = stepcast("--version")
    assert (code, err) == (0, "")
    assert out.startswith("stepcast ")


def test_help_lists_every_command(stepcast):
    code, out, _ = stepcast("--help")
    assert code == 0
    for name in Commands.table:
        assert name in out


@pytest.mark.parametrize("command", [[], ["run"], ["show"], ["show", "schedule"]])
def test_help_in_a_pipe_is_plain_text(command):
    shown = python(f"main({[*command, '--help']!r})")
    out, err = shown.communicate()
    assert (shown.returncode, err) == (0, "")
    assert out.startswith(" ".join(["Usage: stepcast", *command]))
    assert not set(out) & set("╭│╰\x1b")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shwo"], "try:  show"),
        (["run"], "RUN.yaml"),
        (["run", "x.yaml", "--trace-detail", "atoms"], "operator"),
        (["run", "x.yaml", "--jsn", "-"], "--json"),
        (["calibrate", "check", "--data", ".", "--hardware", "h1000"], "--hardware: 'h1000'"),
        (["calibrate", "check", "--data", "/", "--hardware", "h100"], "no measurement tables"),
        (["import", "megatron", "x.sh", "--var", "x"], "NAME=VALUE"),
        (["calibrate", "measure", "-o", "x", "--budget", "-1 s"], "--budget"),
        (["calibrate", "measure", "-o", "x", "--part", "gem"], "try:  gemm"),
    ],
)
def test_a_mistyped_command_line_exits_2_and_says_what_is_allowed(stepcast, arguments, said):
    code, out, err = stepcast(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_wrong_input_exits_2_with_its_message_alone(stepcast, command):
    def attempt() -> None:
        raise SpecError(
            Problem(file="run.yaml", line=7, key_path="parallelism.tp", value=3, rule="must divide 8")
        )

    command(attempt)
    assert stepcast("attempt") == (2, "", "error: run.yaml:7: parallelism.tp: 3\n  rule: must divide 8\n")


def test_a_value_error_of_our_own_code_exits_2(stepcast, command):
    command(ours("raise ValueError('m = 0: at least 1 microbatch is needed')"))
    assert stepcast("attempt") == (2, "", "error: m = 0: at least 1 microbatch is needed\n")


@pytest.mark.parametrize(
    "statement", ["import json; json.loads('{')", "1 / 0", "{}['stage']", "assert False"]
)
def test_a_fault_of_ours_exits_1_and_says_how_to_report_it(stepcast, command, statement):
    command(ours(statement))
    code, out, err = stepcast("attempt")
    assert (code, out) == (1, "")
    assert "not of your input" in err
    assert "stepcast --debug" in err
    assert "Traceback" not in err


def test_a_file_that_cannot_be_opened_exits_2(stepcast, command):
    command(ours("open('/nowhere/at/all')"))
    assert stepcast("attempt") == (2, "", "error: /nowhere/at/all: No such file or directory\n")


def test_a_full_disk_exits_2(stepcast, command):
    command(ours("import errno, os; raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"))
    assert stepcast("attempt") == (2, "", "error: No space left on device\n")


@pytest.mark.parametrize("asked", ["option", "variable"])
def test_the_traceback_is_shown_when_asked_for(stepcast, command, monkeypatch, asked):
    command(ours("1 / 0"))
    monkeypatch.setenv("STEPCAST_DEBUG", "1" if asked == "variable" else "")
    _, _, err = stepcast(*["--debug"] * (asked == "option"), "attempt")
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_an_interrupt_exits_130(stepcast, command):
    command(ours("raise KeyboardInterrupt"))
    code, _, err = stepcast("attempt")
    assert code == 130
    assert "Traceback" not in err


def python(program, **options):
    return subprocess.Popen(
        [sys.executable, "-c", f"from simulator.cli.app import main; {program}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_a_reader_that_leaves_early_is_no_error():
    shown = python("main(['show', 'hardware'])")
    shown.stdout.close()
    assert shown.stderr.read() == ""
    assert shown.wait() == 141
    shown.stderr.close()


def test_a_terminal_without_the_characters_we_use_still_gets_an_answer():
    shown = python("main(['show', 'hardware'])", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    out, err = shown.communicate()
    assert (shown.returncode, err) == (0, "")
    assert "8 ? nvlink4" in out


def test_every_command_has_its_name_for_the_help_of_a_terminal():
    group = typer.main.get_command(app)
    context = typer.Context(group)
    for name in Commands.table:
        command = group.get_command(context, name)
        assert command.name == name
        for inner in getattr(command, "table", {}):
            assert command.get_command(context, inner).name == inner
