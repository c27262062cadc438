"""Exhaustive and best search: the same winner, and bounds that never exceed what they bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.shared import Shared
from simulator.simulate import simulate, simulate_memory
from simulator.spec.documents import Documents
from simulator.spec.errors import SpecError
from simulator.spec.rules import broken_layout_rules
from simulator.sweep.bounds import Bounds, Effort
from simulator.sweep.choices import with_key
from simulator.sweep.compare import differences, main_losses, pareto_front
from simulator.sweep.evaluate import evaluate
from simulator.sweep.evaluation import Evaluation
from simulator.sweep.execute import Inline
from simulator.sweep.outcome_json import outcome_json
from simulator.sweep.read import read_sweep
from simulator.sweep.search import Progress, enumerate_layouts, search
from simulator.sweep.store import Store

SPACE = """
run:
  model: [llama3-8b, mixtral-8x7b]
  cluster: h100
  gpus: [16, 32]
  parallelism:
    tp: [1, 2, 4, 8]
    pp: [1, 2, 4]
    vp: [1, 2, 4]
    ep: [1, 4]
    etp: [0, 1]
    zero: [0, 1, 2, 3]
    schedule: ["", zb-h1, zb-v, dualpipe]
    stage_split: [equal, balanced]
  training:
    seq_length: 4096
    micro_batch_size: [1, 2]
    global_batch_size: 64
    precision: [bf16, fp8]
    recompute: [{granularity: none}, {granularity: full}, {granularity: full, method: block, num_layers: 2}]
  runtime:
    overlap_grad_reduce: [true, false]
    tp_overlap: [false, true]
    overlap_param_gather: [true, false]
"""


UNEVEN = Documents(distribution="lognormal", mean=900.0, sigma=1.5)


def found(path, *overrides, directory=None, resume=False):
    sweep = read_sweep(path, overrides)
    with Store(directory, sweep.fingerprint, resume=resume) as store:
        return search(sweep, store, Inline(), Progress())


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return read_sweep(path).space


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_bounds_bound(choices, data):
    run = choices.base
    for axis in choices.axes:
        choice = data.draw(st.sampled_from(list(axis.values(run))), label=axis.key)
        run = with_key(run, axis.path, choice.value)
    documents = data.draw(st.sampled_from([Documents(), UNEVEN]), label="documents")
    run = replace(run, training=replace(run.training, documents=documents))
    if broken_layout_rules(run):
        return
    bound = Bounds().bound(run)
    assert bound.peak_bytes <= simulate_memory(run).peak_bytes * (1 + 1e-9)
    assert bound.seconds <= simulate(run).step_time_s


OVERLAPPED = """
run:
  model: [mixtral-8x7b, deepseek-v3]
  cluster: h100
  gpus: 16
  parallelism:
    tp: [1, 2]
    pp: [1, 2]
    vp: [1, 2]
    ep: [2, 4]
    etp: 1
    zero: [1, 3]
    schedule: ["", interleaved-1f1b]
    stage_split: even
  training:
    seq_length: 2048
    micro_batch_size: [1, 2]
    global_batch_size: 64
    precision: [bf16, fp8]
    recompute: [{granularity: none}, {granularity: selective, modules: [moe_act]}, {granularity: full}]
  runtime:
    ep_overlap: true
    delay_wgrad: [false, true]
    moe_dispatcher: [alltoall, deepep]
    moe_grouped_gemm: fused
    software: [megatron, compiled]
"""


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_bounds_bound_layers_that_run_beside_each_other(overlapped, data):
    run = data.draw(st.sampled_from(overlapped)).run
    bounds = Bounds()
    rough, fine = bounds.bound(run, Effort.KERNELS), bounds.bound(run)
    assert rough.seconds <= fine.seconds * (1 + 1e-9)
    assert fine.seconds <= simulate(run).step_time_s


@pytest.fixture(scope="module")
def overlapped(tmp_path_factory):
    path = tmp_path_factory.mktemp("overlapped") / "overlapped.yaml"
    path.write_text(OVERLAPPED, encoding="utf-8")
    return enumerate_layouts(read_sweep(path))[0]


def test_one_shared_cache_changes_nothing(sweep_file):
    layouts, _ = enumerate_layouts(read_sweep(sweep_file()))
    shared = Shared()
    for layout in layouts[::5]:
        assert simulate(layout.run, shared=shared) == simulate(layout.run)


@pytest.mark.parametrize(
    "objective", ["step_time", "tokens_per_s", "tokens_per_dollar", "tokens_per_kwh", "gpus_for_deadline"]
)
def test_best_finds_the_exhaustive_winner_with_fewer_evaluations(sweep_file, objective):
    asked = [
        f"objective={objective}",
        "cost.price_per_gpu_hour=2",
        "cost.tokens=1e11",
        "cost.deadline_days=10",
    ]
    everything = found(sweep_file(), *asked)
    best = found(sweep_file(), *asked, "search=best")
    assert best.best == everything.best
    assert 0 < best.evaluated < everything.evaluated / 2
    assert everything.evaluated == everything.census.legal


def test_ranked_by_objective(sweep_file):
    outcome = found(sweep_file(), "objective=tokens_per_dollar", "cost.price_per_gpu_hour=2")
    spent = [
        outcome.sweep.objective.spending(outcome.layouts[e.number].run, e.step_time_s).tokens_per_dollar
        for e in outcome.ranked
    ]
    assert spent == sorted(spent, reverse=True)


@pytest.mark.parametrize("gpus", [8, 16])
def test_the_deadline_is_met_with_the_fewest_gpus(sweep_file, gpus):
    fastest = found(sweep_file(), f"gpus={gpus}", "search=best").best
    tokens = 0.999 * fastest.tokens_per_s * 86400
    asked = ("objective=gpus_for_deadline", f"cost.tokens={tokens}", "cost.deadline_days=1", "search=best")
    outcome = found(sweep_file(), *asked)
    assert outcome.layouts[outcome.best.number].run.gpus == gpus


def test_an_objective_without_its_prices_is_refused(sweep_file):
    with pytest.raises(SpecError, match=r"tokens_per_dollar needs cost\.price_per_gpu_hour"):
        found(sweep_file(), "objective=tokens_per_dollar")


def test_infeasible_layouts_are_evaluated_and_counted_apart(sweep_file):
    outcome = found(sweep_file(), "model=llama3-70b", "gpus=16")
    counts = outcome_json(outcome)
    assert set(outcome.infeasible) <= {"memory", "headroom"}
    assert counts["infeasible"] == sum(outcome.infeasible.values()) > 0
    assert counts["evaluated"] == counts["infeasible"] + len(outcome.ranked)


def test_a_constraint_on_results_excludes_layouts(sweep_file):
    text = sweep_file().read_text(encoding="utf-8") + "  quick: step_time_s < 0.8\n"
    outcome = found(sweep_file(text))
    assert all(e.step_time_s < 0.8 for e in outcome.ranked)
    assert outcome.infeasible["quick"] > 0


def test_a_layout_the_simulator_cannot_run_is_an_outcome(sweep_file, monkeypatch):
    layouts, _ = enumerate_layouts(read_sweep(sweep_file()))
    monkeypatch.setattr("simulator.sweep.evaluate.Simulation", lambda *_, **__: 1 / 0)
    assert evaluate(layouts[0]).status == "failed"
    assert "ZeroDivisionError" in evaluate(layouts[0]).message


def test_losses_sum_to_the_difference():
    fast, slow = (
        Evaluation(number=n, labels=(), status="ok", step_time_s=sum(b.values()), breakdown_s=b)
        for n, b in enumerate(({"gemm": 5.0, "bubble": 1.0}, {"gemm": 4.5, "bubble": 4.0, "exposed_tp": 0.1}))
    )
    every = differences(slow, fast)
    assert sum(d.seconds for d in every) == pytest.approx(slow.step_time_s - fast.step_time_s)
    assert [loss.cause for loss in main_losses(slow, fast)] == ["bubble"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20))
def test_no_one_beats_the_pareto_front(points):
    evaluations = [
        Evaluation(number=i, labels=(), status="ok", step_time_s=t, peak_bytes=m)
        for i, (t, m) in enumerate(points)
    ]
    front = {
        (e.step_time_s, e.peak_bytes)
        for e in pareto_front(evaluations, (lambda e: e.step_time_s, lambda e: e.peak_bytes))
    }
    for t, m in points:
        beaten = any(a <= t and b <= m and (a, b) != (t, m) for a, b in points)
        assert ((t, m) in front) != beaten
