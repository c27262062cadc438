"""``stepcast run``: one answer on the terminal, as JSON and as a timeline."""

import gzip
import json
from itertools import groupby, pairwise
from operator import itemgetter

import pytest

from simulator.cli.app import main

DEMO = "llama3.1-405b-16384-h100"
SMALL = "llama3-8b-8-h100"
KEYS = {
    *(
        "step_time_s",
        "step_time_interval_s",
        "tokens_per_s",
        "tokens_per_s_per_gpu",
        "bubble_fraction",
        "breakdown_s",
    ),
    *("model_tflops_per_gpu", "hardware_tflops_per_gpu", "mfu", "hfu", "flops_convention", "peak_flops"),
    *("memory", "world_size", "warnings", "provenance"),
}


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["run", *map(str, arguments)])
        return ended.value.code, *capsys.readouterr()

    return call


def test_the_tables_are_printed(run):
    code, out, err = run(DEMO)
    assert (code, err) == (0, "")
    assert out.startswith(DEMO)
    for heading in ("Step time", "MFU", "Where the step goes", "Memory per GPU", "Published", "Assumed"):
        assert heading in out


def test_json_to_a_dash_is_all_that_is_printed(run):
    code, out, err = run(DEMO, "--json", "-")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert set(result) >= KEYS
    assert sum(result["breakdown_s"].values()) == pytest.approx(result["step_time_s"], rel=1e-9)
    assert result["step_time_interval_s"][0] <= result["step_time_s"] <= result["step_time_interval_s"][1]


def test_json_to_a_file_leaves_the_tables_on_the_terminal(run, tmp_path):
    code, out, _ = run(DEMO, "--json", tmp_path / "result.json")
    assert code == 0
    assert "Where the step goes" in out
    assert set(json.loads((tmp_path / "result.json").read_text())) >= KEYS


def test_equal_input_gives_equal_bytes(run, tmp_path):
    outputs = []
    for name in ("a", "b"):
        files = [tmp_path / f"{name}.json", tmp_path / f"{name}.json.gz"]
        run(DEMO, "--json", files[0], "--trace", files[1])
        outputs.append([file.read_bytes() for file in files])
    assert outputs[0] == outputs[1]


def test_set_changes_the_run_in_the_order_given(run):
    half = ["gpus=1", "gpus=8192", "parallelism.dp=64", "training.global_batch_size=1024"]
    code, out, err = run(DEMO, "--json", "-", *(word for text in half for word in ("--set", text)))
    assert (code, err) == (0, "")
    assert json.loads(out)["world_size"] == 8192


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        ([], "block"),
        (["--set", "simulation.detail=operator"], "operator"),
        (["--trace-detail", "operator"], "operator"),
        (["--set", "simulation.detail=operator", "--trace-detail", "block"], "block"),
    ],
)
def test_the_detail_is_the_run_files_unless_the_trace_asks_for_another(run, arguments, detail):
    assert json.loads(run(SMALL, "--json", "-", *arguments)[1])["provenance"]["detail"] == detail


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.yaml"], "nowhere.yaml"),
        ([DEMO, "--set", "parallelism.tq=8"], "parallelism.tq"),
        ([DEMO, "--set", "parallelism.tp"], "key.path=value"),
        ([DEMO, "--set", "parallelism.tp=7"], "parallelism.tp"),
        ([DEMO, "--json", "no/such/folder/result.json"], "no/such/folder"),
        ([DEMO, "--trace", "no/such/folder/trace.json"], "no/such/folder"),
    ],
)
def test_a_mistake_exits_2_with_one_message(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


@pytest.fixture(scope="module", params=["block", "operator"])
def traced(request, tmp_path_factory):
    """The step time and the trace's slices at each level of detail."""
    folder = tmp_path_factory.mktemp("trace")
    with pytest.raises(SystemExit):
        main(["run", DEMO, "--set", "training.global_batch_size=2048", "--trace", str(folder / "t.json.gz"),
              "--trace-detail", request.param, "--json", str(folder / "r.json")])  # fmt: skip
    with gzip.open(folder / "t.json.gz", "rt", encoding="utf-8") as stream:
        events = json.load(stream)["traceEvents"]
    step_time_s = json.loads((folder / "r.json").read_text())["step_time_s"]
    return step_time_s, [event for event in events if event["ph"] == "X"]


def test_the_last_slice_ends_with_the_step(traced):
    step_time_s, slices = traced
    assert min(event["ts"] for event in slices) >= 0
    assert max(event["ts"] + event["dur"] for event in slices) == pytest.approx(1e6 * step_time_s, abs=2e-3)


def test_slices_of_one_stream_do_not_overlap(traced):
    thread = itemgetter("pid", "tid")
    for _, group in groupby(sorted(traced[1], key=lambda e: (*thread(e), e["ts"], e["dur"])), key=thread):
        for before, after in pairwise(group):
            assert round(1000 * (before["ts"] + before["dur"])) <= round(1000 * after["ts"])


@pytest.mark.parametrize("option", ["--json", "--trace", "--report"])
def test_a_place_that_cannot_be_written_stops_the_run_before_it_writes_anything(run, tmp_path, option):
    first = "--json" if option != "--json" else "--trace"
    code, out, err = run(SMALL, first, tmp_path / "first.json", option, tmp_path / "nowhere" / "x")
    assert (code, out) == (2, "")
    assert "nowhere: the folder does not exist" in err
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_another_kind_than_a_web_page_is_refused(run, tmp_path):
    code, out, err = run(SMALL, "--report", tmp_path / "report.pdf")
    assert (code, out) == (2, "")
    assert "report.html, not .pdf files" in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []
