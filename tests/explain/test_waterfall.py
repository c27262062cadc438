"""The waterfall: from the device's peak to the predicted MFU, nothing missing and nothing twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import load_run, simulate
from simulator.explain.waterfall import KernelUse, waterfall

MODEL_LOSSES = ("lower_precision", "sustained_rate", "gemm", "attention", "memory_bound", "recompute")
FULL = "training.recompute={granularity: full}"
RUNS = {
    "dense": ("llama3-8b-8-h100", ()),
    "experts": ("mixtral-8x7b-64-h100", ()),
    "recompute": ("mixtral-8x7b-64-h100", (FULL,)),
    "narrow": ("llama3-8b-8-h100", ("training.precision=fp8",)),
    "split backward": ("mixtral-8x7b-64-h100", ("parallelism.vp=1", "parallelism.schedule=zb-h1")),
    "every operator": ("llama3-8b-8-h100", ("simulation.detail=operator",)),
    "every rank": ("llama3-8b-8-h100", ("simulation.ranks=all",)),
    "sharded": ("llama3-8b-8-h100", ("parallelism.tp=1", "parallelism.dp=8", "parallelism.zero=3")),
}

seconds = st.floats(0.0, 1e3)
kinds = st.sampled_from(["gemm", "attention", "norm", "activation"])
kernels = st.builds(KernelUse, kinds, seconds, seconds, seconds, st.floats(0.0, 1e18))
labels = st.sampled_from(["gemm", "norm", "exposed_tp", "exposed_dp", "bubble", "optimizer", "host", "new"])


@given(
    st.lists(kernels, max_size=8),
    st.lists(st.dictionaries(labels, seconds), min_size=1, max_size=6),
    seconds,
)
def test_terms_sum_to_the_mean_of_the_stages(uses, breakdowns, model_s):
    found = waterfall(uses, breakdowns, model_s=model_s, peak_flops=1e15)
    mean = sum(sum(spent.values()) for spent in breakdowns) / len(breakdowns)
    size = sum(map(abs, found.values()))
    assert sum(found.values()) == pytest.approx(mean, rel=1e-9, abs=1e-12 * size)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_imbalance_is_what_stages_wait_beyond_the_busiest(bubbles):
    breakdowns = [{"gemm": 1.0 - bubble, "bubble": bubble} for bubble in bubbles]
    found = waterfall([], breakdowns, model_s=0.0, peak_flops=1.0)
    assert found["bubble"] == min(bubbles)
    assert found["imbalance"] == pytest.approx(sum(bubbles) / len(bubbles) - min(bubbles), abs=1e-12)


@pytest.fixture(scope="module", params=RUNS)
def result(request):
    file, overrides = RUNS[request.param]
    return simulate(load_run(file, list(overrides)))


def test_terms_of_a_run_are_its_step_and_begin_with_its_mfu(result):
    found = result.waterfall_s
    assert sum(found.values()) == pytest.approx(result.step_time_s, rel=1e-9)
    assert next(iter(found)) == "model_flops"
    assert found["model_flops"] / result.step_time_s == pytest.approx(result.mfu, rel=1e-12)


def test_no_kernel_of_a_run_beats_the_peak(result):
    assert all(result.waterfall_s[loss] >= -1e-9 for loss in MODEL_LOSSES)


def test_losses_keep_the_breakdowns_communication_and_bubble(result):
    found, spent = result.waterfall_s, result.breakdown_s
    for label in spent:
        if label.startswith("exposed_") or label == "optimizer":
            assert found[label] == pytest.approx(spent[label])
    assert found["bubble"] + found["imbalance"] == pytest.approx(spent.get("bubble", 0.0), abs=1e-12)


def test_recompute_is_the_kernels_that_run_twice():
    plain, full = (simulate(load_run("mixtral-8x7b-64-h100", keys)) for keys in ([], [FULL]))
    assert plain.waterfall_s["recompute"] == 0.0
    more = full.hfu * full.step_time_s - plain.hfu * plain.step_time_s  # its FLOPs at the peak
    assert full.waterfall_s["recompute"] > more
    for loss in ("model_flops", "gemm", "attention", "memory_bound"):
        assert full.waterfall_s[loss] == pytest.approx(plain.waterfall_s[loss], rel=0.02)
