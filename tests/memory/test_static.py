"""Weights, gradients and optimizer state: the ZeRO paper's table, and nothing lost or held twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.memory.report import StageMemory
from simulator.partition.plan import plan_run
from simulator.simulate import simulate_memory
from simulator.spec.rules import broken_rules
from simulator.spec.run import RunSpec
from simulator.spec.sharding import FullySharded

MakeRun = Callable[..., RunSpec]


def static(stage: StageMemory) -> float:
    return stage.weights + stage.gradients + stage.optimizer


@pytest.mark.parametrize(("zero", "sharded"), [(0, 0), (1, 12), (2, 14), (3, 16)])
def test_zero_paper_bytes_per_parameter(make_run: MakeRun, zero: int, sharded: int) -> None:
    """Rajbhandari 2020, figure 1: 16Ψ, 4Ψ + 12Ψ/N, 2Ψ + 14Ψ/N, 16Ψ/N with 16-bit gradients.

    ZeRO-2 and 3 hold whole what is under way, which the paper leaves out: buckets of gradients and units.
    """
    run = make_run(zero=zero, grad_dtype="fp16", fsdp=FullySharded(buffers="in-place"))
    psi = sum(chunk.parameters for chunk in plan_run(run).chunks)
    paper = psi * (16 - sharded + sharded / 8)
    stage = simulate_memory(run).stages[0]
    if zero < 2:
        assert static(stage) == pytest.approx(paper, rel=1e-12)
        return
    largest = max(layer.parameters for layer in plan_run(run).chunks[0].layers)
    assert paper <= static(stage) <= paper + 16 * largest
    assert stage.optimizer == pytest.approx(12 * psi / 8)


LAYOUTS = st.fixed_dictionaries(
    {
        "tp": st.sampled_from([1, 2, 4]),
        "pp": st.sampled_from([1, 2, 4]),
        "gpus": st.sampled_from([8, 16, 32]),
        "zero": st.sampled_from([0, 1]),
        "vp": st.sampled_from([1, 2]),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=LAYOUTS)
def test_static_bytes_summed_over_ranks_are_the_models_times_its_copies(
    make_run: MakeRun, layout: dict[str, int]
) -> None:
    run = make_run(**layout)
    if broken_rules(run):
        return
    plan, report = plan_run(run), simulate_memory(run)
    one = plan_run(make_run(gpus=1, zero=0, global_batch_size=1)).chunks[0]
    layers = [layer for chunk in plan.chunks for layer in chunk.layers]
    repeated = (run.parallelism.tp - 1) * sum(layer.replicated_parameters for layer in layers)
    elements = run.dp * (one.parameters + repeated)
    ranks = run.dp * run.parallelism.tp
    assert sum(stage.weights for stage in report.stages) * ranks == pytest.approx(2 * elements)
    assert sum(stage.gradients for stage in report.stages) * ranks == pytest.approx(4 * elements)
    copies = 1 if run.parallelism.zero == 0 else 1 / run.dp
    assert sum(stage.optimizer for stage in report.stages) * ranks == pytest.approx(12 * elements * copies)


def test_expert_weights_are_divided_by_expert_parallelism_not_by_tp(make_run: MakeRun) -> None:
    model = replace(
        make_run().model,
        gated_mlp=True,
        linear_bias=False,
        num_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=1024,
    )
    of_experts = 8 * 3 * 1024 * 1024 * 8  # experts, matrices, h, width, layers
    apart = plan_run(make_run(model=model, tp=2, ep=4, etp=1)).chunks[0]
    split = plan_run(make_run(model=model, tp=2, ep=4, etp=2)).chunks[0]
    assert apart.expert_parameters == of_experts / 4
    assert split.expert_parameters == of_experts / 8
