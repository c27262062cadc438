"""The README's Python runs as printed."""

import re
from pathlib import Path

from reports.terminal import print_result
from simulator import load_run, simulate

README = Path(__file__).parents[2] / "reports" / "README.md"
MAIN = Path(__file__).parents[2] / "README.md"


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall("```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert re.match(r"[\d.]+ s, MFU [\d.]+%, [\d.]+ GiB\n +category +seconds +share\n0 +gemm ", printed)
    assert (tmp_path / "pipeline.png").stat().st_size > 10_000


def blocks(kind):
    fenced = re.findall("```(\\w*)\n(.*?)```", MAIN.read_text(encoding="utf-8"), re.DOTALL)
    return [text for found, text in fenced if found == kind]


def shape(text):
    """Words without their numbers and the blanks that depend on them."""
    return " ".join(re.sub(r"[\d.]+", "0", text).split())


def test_the_main_readmes_python_prints_what_it_shows(monkeypatch, capsys):
    monkeypatch.chdir(MAIN.parent)
    [code] = blocks("python")
    exec(compile(code, str(MAIN), "exec"), {})
    printed = capsys.readouterr().out
    [shown] = [text for text in blocks("") if "category" in text]
    assert shape(printed) == shape(shown)


def test_the_main_readme_shows_the_screen_as_it_is(capsys):
    [shown] = [text for text in blocks("") if "Where the step goes" in text]
    run = load_run(shown.splitlines()[0])
    print_result(simulate(run), run)
    printed = shape(capsys.readouterr().out)
    headings = [line for line in shown.splitlines() if line and not line.startswith(" ")]
    for heading in headings:
        if heading != "To make it fit":  # what the command adds
            assert shape(heading) in printed


def test_the_readme_names_files_that_exist():
    text = README.read_text(encoding="utf-8")
    for name in re.findall(r"`([a-z_]+\.py)`", text):
        assert (README.parent / name).is_file(), name
    for name in re.findall(r"`figures\.([a-z_]+)\.", text):
        assert (README.parent / "figures" / f"{name}.py").is_file(), name
