"""The shape of the code: small files and functions, documented names, no imports a command does not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("simulator", "calibration", "reports")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
HEAVY = {"scipy", "pandas", "matplotlib", "loky", "torch", "distributed"}
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def trees():
    return {named(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_no_file_is_longer_than_a_reader_can_hold():
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_longer_than_a_screen(trees):
    too_long = {
        f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, Function) and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert too_long == {}


def undocumented(node, where):
    """Public names without a docstring: modules, classes, functions, methods of classes without bases."""
    if not ast.get_docstring(node):
        yield where
    for child in node.body:
        if isinstance(child, (*Function, ast.ClassDef)) and not child.name.startswith("_"):
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{where} {child.name}")
            elif not ast.get_docstring(child) and not inherited(child, node):
                yield f"{where} {child.name}"


def inherited(function, owner):
    """A method of a class with bases: the interface it fulfils is documented there."""
    return isinstance(owner, ast.ClassDef) and bool(owner.bases)


def test_every_public_name_is_documented(trees):
    assert [gap for name, tree in trees.items() for gap in undocumented(tree, name)] == []


@pytest.mark.parametrize("arguments", [["run", "llama3.1-405b-16384-h100"], ["show", "models"]])
def test_a_command_does_not_import_what_only_others_need(arguments):
    program = (
        "import sys\n"
        "from simulator.cli.app import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        "    names = {name.partition('.')[0] for name in sys.modules}\n"
        f"    print(sorted(names & {HEAVY!r}), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "[]\n")


def test_the_package_itself_imports_only_the_standard_library():
    program = "import sys, simulator; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ended = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(ended.stdout.split()) - sys.stdlib_module_names - {"simulator", "__main__"} == set()


@pytest.mark.parametrize("before", ["", "import tests.benchmarks.speed; "])
def test_the_public_names_are_functions_whatever_was_imported_before(before):
    program = (
        f"{before}from simulator import load_run, simulate; print(callable(load_run), callable(simulate))"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("True True\n", "")
