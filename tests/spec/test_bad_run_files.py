"""Every way to get a run file wrong gives the place, the key, the rule and, where there is one, a remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from simulator.cli.app import main
from simulator.spec.errors import SpecError
from simulator.spec.load import load_run

Write = Callable[..., Path]
Case = dict[str, str]

CASES: dict[str, Case] = yaml.safe_load(Path(__file__).with_name("bad_run_files.yaml").read_text())


def test_there_are_at_least_forty_bad_run_files() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_bad_run_file_is_told_where_it_is_wrong(case: Case, good: str, write: Write) -> None:
    assert good.count(case["old"]) >= 1
    text = good.replace(case["old"], case["new"], 1)
    path = write(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if case["at"] in row)
    with pytest.raises(SpecError) as caught:
        load_run(path)
    problems = [problem for problem in caught.value.problems if problem.key_path == case["key"]]
    assert problems, str(caught.value)
    assert {problem.line for problem in problems} == {line}
    assert {problem.file for problem in problems} == {str(path)}
    remedy = case.get("try", "")
    assert any(case["rule"] in problem.rule and remedy in problem.suggestion for problem in problems), (
        problems
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_message_is_short_and_free_of_python(case: Case, good: str, write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(write(good.replace(case["old"], case["new"], 1)))
    message = str(caught.value)
    for noise in ("Traceback", "pydantic", "https://", "Input should", "<class", "object at 0x"):
        assert noise not in message


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_command_ends_with_status_2_and_the_message(
    case: Case, good: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(good.replace(case["old"], case["new"], 1))
    with pytest.raises(SystemExit) as caught:
        main(["run", str(path)])
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert case["key"] in printed.err
    assert "Traceback" not in printed.err


def test_every_problem_of_every_section_is_told_at_once(good: str, write: Write) -> None:
    text = good.replace("gpus: 64", "gpus: 0").replace("  tp: 4", "  tp: four").replace("80 GiB", "80 W")
    text = text.replace("precision: bf16", "precision: bf61").replace("hidden_size", "hiden_size")
    with pytest.raises(SpecError) as caught:
        load_run(write(text))
    assert [problem.key_path for problem in caught.value.problems] == [
        *("model.hiden_size", "cluster.device.memory_bytes", "gpus", "parallelism.tp"),
        "training.precision",
    ]


def test_every_broken_rule_is_told_at_once(good: str, write: Write) -> None:
    text = good.replace("layers: 16", "layers: 15").replace("size: 64", "size: 63")
    text = text.replace("max_gpus: 1024", "max_gpus: 8")
    with pytest.raises(SpecError) as caught:
        load_run(write(text))
    assert {problem.key_path for problem in caught.value.problems} == {
        *("gpus", "training.global_batch_size", "parallelism.pp")
    }


def test_a_message_reads_like_a_compilers(good: str, write: Write) -> None:
    path = write(good.replace("  tp: 4", "  tp: 3"))
    with pytest.raises(SpecError) as caught:
        load_run(path)
    assert (
        f"{path}:35: parallelism.tp: 3\n  rule: must divide num_attention_heads (16) of tiny\n  try:  2 or 4"
    ) in str(caught.value)
