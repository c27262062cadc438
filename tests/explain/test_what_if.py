"""Better hardware: simulated again, never slower, and only where the step uses it."""

import json

import pytest

from simulator import load_run, simulate
from simulator.cli.app import main
from simulator.what_if import CHANGES, what_if

ALONE = ("gpus=1", "parallelism.tp=1", "parallelism.dp=1", "training.global_batch_size=2")
RUNS = {
    "one GPU": ("llama3-8b-8-h100", ALONE),
    "one node": ("llama3-8b-8-h100", ()),
    "pipeline and experts": ("mixtral-8x7b-64-h100", ("training.global_batch_size=128",)),
    "sharded": ("llama3.1-8b-8-h100-fsdp2", ()),
    "host-bound": ("qwen3-30b-a3b-16-h100", ()),
    "offloaded": ("gpt-10b-1-v100-zero-offload", ()),
}


def answers(name):
    file, overrides = RUNS[name]
    run = load_run(file, list(overrides))
    result = simulate(run)
    return result, {item.figure: item for item in what_if(run, result)}


@pytest.fixture(scope="module", params=RUNS)
def answered(request):
    return answers(request.param)


def test_better_hardware_never_slows_a_step(answered):
    result, found = answered
    assert list(found) == [change.figure for change in CHANGES]
    for item in found.values():
        assert item.step_time_s <= result.step_time_s * (1 + 1e-9), item


def test_all_figures_together_explain_no_more_than_the_step(answered):
    _, found = answered
    shares = [
        abs(found[change.figure].elasticity) for change in CHANGES if change.figure != "memory_capacity"
    ]
    assert 0.3 < sum(shares) < 1.05


def test_a_step_does_not_gain_from_what_it_does_not_use():
    result, found = answers("one GPU")
    for figure in ("scale_up_bandwidth", "scale_out_bandwidth", "latency", "memory_capacity"):
        assert found[figure].step_time_s == pytest.approx(result.step_time_s, rel=1e-12)
    _, found = answers("one node")
    assert found["scale_out_bandwidth"].elasticity == pytest.approx(0, abs=1e-9)
    assert found["scale_up_bandwidth"].elasticity < -0.01


def test_more_memory_changes_the_verdict_alone():
    run = load_run("llama3-8b-8-h100", ["training.micro_batch_size=2", "cluster.device.memory_bytes=70GiB"])
    result = simulate(run)
    found = {item.figure: item for item in what_if(run, result)}
    assert result.memory["verdict"] == "does not fit"
    assert found["peak_flops"].verdict == "does not fit"
    assert found["memory_capacity"].verdict != "does not fit"
    assert found["memory_capacity"].step_time_s == pytest.approx(result.step_time_s, rel=1e-12)


def test_the_command_tells_it_on_the_screen_and_in_json(capsys):
    for arguments in ([], ["--json", "-"]):
        with pytest.raises(SystemExit) as done:
            main(["run", "llama3-8b-8-h100", "--what-if", *arguments])
        assert not done.value.code
        printed = capsys.readouterr().out
        if not arguments:
            assert "+10 % NVLink bandwidth" in printed
    rows = json.loads(printed)["what_if"]
    assert set(rows[0]) == {"figure", "factor", "step_time_s", "elasticity", "verdict"}
    assert len(rows) == len(CHANGES)
