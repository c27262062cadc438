"""The README's Python runs as printed."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "reports" / "README.md"


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall("```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert re.match(r"[\d.]+ s, MFU [\d.]+%, [\d.]+ GiB\n +category +seconds +share\n0 +gemm ", printed)
    assert (tmp_path / "pipeline.png").stat().st_size > 10_000


def test_the_readme_names_files_that_exist():
    text = README.read_text(encoding="utf-8")
    for name in re.findall(r"`([a-z_]+\.py)`", text):
        assert (README.parent / name).is_file(), name
    for name in re.findall(r"`figures\.([a-z_]+)\.", text):
        assert (README.parent / "figures" / f"{name}.py").is_file(), name
