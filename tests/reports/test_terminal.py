"""The screen of a prediction: complete, as wide as the terminal, plain where there is none."""

import io
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from reports.terminal import print_result
from simulator.result import Result
from simulator.spec.load import load_run

GIB = 2**30
DRAWN = re.compile("[█▌▐▏╭╮╰╯─│\x1b]")


def stage(index):
    parts = {"weights": 6, "gradients": 12, "optimizer": 1, "activations": 36 - index, "buffers": 2}
    return {name: size * GIB for name, size in {**parts, "peak_bytes": 57 - index}.items()}


@pytest.fixture(scope="module")
def run():
    return load_run("llama3.1-405b-16384-h100")


@pytest.fixture
def result():
    return Result(
        step_time_s=13.214,
        step_time_interval_s=(12.61, 13.93),
        tokens_per_s=1.2696e6,
        tokens_per_s_per_gpu=77.49,
        model_tflops_per_gpu=402.3,
        hardware_tflops_per_gpu=411.7,
        mfu=0.4066,
        hfu=0.4161,
        flops_convention="megatron",
        peak_flops=989.4e12,
        bubble_fraction=0.0712,
        breakdown_s={
            "gemm": 9.0,
            "attention": 1.3,
            "tp": 1.6,
            "bubble": 0.94,
            "optimizer": 0.374,
            "host": 0.0,
        },
        memory={
            "peak_bytes": 57 * GIB,
            "capacity_bytes": 80 * GIB,
            "fits": True,
            "stages": [stage(index) for index in range(16)],
        },
        world_size=16384,
        warnings=("the fit of attention is extrapolated",),
        waterfall_s={
            "model_flops": 5.373,
            "gemm": 3.627,
            "attention": 1.3,
            "exposed_tp": 1.6,
            "bubble": 0.94,
            "optimizer": 0.374,
        },
        provenance={"stepcast": "0.1.0", "seed": 0},
    )


def screen(result, run, width=80, **options):
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False, **options)
    print_result(result, run, console)
    return stream.getvalue()


def drawn(result, run, width):
    """The screen of a colour terminal, without the colours."""
    text = screen(result, run, width, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in text
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def test_a_pipe_gets_every_fact_as_plain_text(result, run):
    text = screen(result, run, 100)
    assert DRAWN.search(text) is None
    for fact in (
        "13.21 s", "12.6 – 13.9 s", "1.27 M tokens/s", "77.5 per GPU", "402 TFLOP/s", "megatron counting",
        "40.7 %", "of 989 TFLOP/s (dense bf16 peak)", "41.6 %", "7.1 %", "16,384 × NVIDIA H100 SXM5 80 GB",
        "TP 8 · PP 16 · VP 8 · DP 128 · interleaved-1f1b", "57.0 of 80.0 GiB at the fullest stage: fits",
        "the fit of attention is extrapolated", "stepcast 0.1.0 · seed 0",
    ):  # fmt: skip
        assert fact in text


def test_plain_lines_end_without_blanks(result, run):
    assert all(line == line.rstrip() for line in screen(result, run).splitlines())


@pytest.mark.parametrize("how", [{"force_terminal": False}, {"force_terminal": True, "no_color": True}])
def test_no_colour_means_plain(result, run, how):
    assert DRAWN.search(screen(result, run, **how)) is None


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_is_filled_but_never_overrun(result, run, width):
    lines = drawn(result, run, width).splitlines()
    assert max(map(len, lines)) == width
    assert not any("…" in line for line in lines)


def test_the_breakdown_adds_up_and_names_every_cause_once(result, run):
    text = screen(result, run)
    table = text[text.index("Where the step goes") : text.index("Memory per GPU")].splitlines()[1:]
    shares = {
        match[1].strip(): float(match[2])
        for line in table
        if (match := re.match(r"  (.*?) +([\d.]+) %", line))
    }
    assert shares.pop("step") == 100
    assert list(shares) == ["gemm", "attention", "exposed tp", "bubble", "optimizer"]
    assert sum(shares.values()) == pytest.approx(100)


def test_each_bar_begins_where_the_last_one_ended(result, run):
    rows = [
        line for line in drawn(result, run, 120).splitlines() if line.rstrip().endswith("s") and "%" in line
    ]
    bars = [re.search("[▐█▌▏▎▍▋▊▉▕]+", row) for row in rows]
    spans = [(bar.start(), bar.end()) for bar in bars if bar]
    assert len(spans) == 5
    for (_, end), (begin, _) in pairwise(spans):
        assert abs(begin - end) <= 1


def test_the_published_value_stands_beside_the_prediction(result, run):
    text = screen(result, run)
    assert re.search(r"model TFLOP/s per GPU +402 +400 +\+0.6 % +yes", text)
    assert "arXiv 2407.21783" in text
    assert "Published" not in screen(result, replace(run, published=None))


@pytest.mark.parametrize(("step_time_s", "within"), [(13.9, "yes"), (14.0, "no"), (12.6, "no")])
def test_a_published_step_is_placed_in_the_interval(result, run, step_time_s, within):
    measured = replace(run, published=replace(run.published, step_time_s=step_time_s))
    assert re.search(rf"step time +13.2 s +{step_time_s} s +[-+][\d.]+ % +{within}", screen(result, measured))


def test_assumptions_are_listed(result, run):
    text = " ".join(screen(result, run).split())
    for assumption in run.assumptions:
        assert " ".join(assumption.split()) in text


def test_a_run_that_does_not_fit_says_so(result, run):
    full = {**result.memory, "peak_bytes": 91 * GIB, "fits": False}
    text = screen(replace(result, memory=full), run)
    assert "91.0 of 80.0 GiB at the fullest stage: DOES NOT FIT" in text


def test_a_long_pipeline_is_thinned_out_around_its_fullest_stage(result, run):
    stages = [stage(0) for _ in range(64)]
    stages[40] = {**stages[40], "peak_bytes": 70 * GIB}
    text = screen(replace(result, memory={**result.memory, "stages": stages}), run)
    table = text[text.index("Memory per GPU") : text.index("Published")]
    rows = [line.split()[0] for line in table.splitlines()[2:] if line.strip()]
    assert rows == ["0", "1", "2", "…", "39", "40", "41", "…", "62", "63"]


def test_names_with_brackets_are_printed_as_they_are(result, run):
    assert "my [bold]run[/]" in screen(result, replace(run, name="my [bold]run[/]"), force_terminal=True)
