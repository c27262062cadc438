"""Expert groups: classes of ranks against every rank, and what uneven routing costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.simulate import simulate
from simulator.spec.expert_load import ExpertLoad
from simulator.spec.load import load_run
from simulator.spec.run import RunSpec


@st.composite
def small_worlds(draw: st.DrawFn) -> RunSpec:
    """Mixtral-like runs of up to 64 ranks under any folding of the experts."""
    run = load_run("mixtral-8x7b-64-h100")
    tp = draw(st.sampled_from([1, 2, 4]))
    pp, vp = draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]))
    dp = draw(st.sampled_from([1, 2, 4]))
    etp = draw(st.sampled_from([e for e in (1, 2, 4) if e <= tp]))
    ep = draw(st.sampled_from([e for e in (1, 2, 4, 8) if tp * dp % (e * etp) == 0]))
    limited = ["deepep", "hybridep"] if etp == 1 else []
    dispatcher = draw(st.sampled_from(["alltoall", "allgather", *limited]))
    overlap = ep > 1 and dispatcher != "allgather" and (pp == 1 or vp > 1) and draw(st.booleans())
    return replace(
        run,
        gpus=tp * pp * dp,
        model=replace(run.model, num_hidden_layers=4, n_shared_experts=draw(st.integers(0, 1))),
        parallelism=replace(run.parallelism, tp=tp, pp=pp, vp=vp, dp=dp, ep=ep, etp=etp),
        training=replace(
            run.training,
            global_batch_size=4 * dp,
            moe=ExpertLoad(imbalance=draw(st.sampled_from([1.0, min(1.5, ep)]))),
        ),
        runtime=replace(
            run.runtime,
            moe_dispatcher=dispatcher,
            ep_overlap=overlap,
            delay_wgrad=overlap and draw(st.booleans()),
            overlap_grad_reduce=draw(st.booleans()),
            overlap_param_gather=draw(st.booleans()),
        ),
    )


@settings(max_examples=15, deadline=None)
@given(run=small_worlds())
def test_classes_and_blocks_give_the_step_time_of_every_rank_and_operator(
    loses_nothing_by_folding: Callable[[RunSpec], None], run: RunSpec
) -> None:
    loses_nothing_by_folding(run)


def loaded(load: ExpertLoad, **runtime: object) -> RunSpec:
    run = load_run("mixtral-8x7b-64-h100")
    return replace(
        run,
        training=replace(run.training, moe=load),
        runtime=replace(run.runtime, **runtime),  # type: ignore[arg-type]
    )


def test_the_fullest_rank_decides_the_time_and_the_mean_rank_the_flops() -> None:
    even, uneven = simulate(loaded(ExpertLoad())), simulate(loaded(ExpertLoad(imbalance=2.0)))
    assert uneven.step_time_s > 1.4 * even.step_time_s
    hardware = [r.hardware_tflops_per_gpu * r.step_time_s for r in (even, uneven)]
    assert hardware[0] == pytest.approx(hardware[1], rel=1e-9)
    assert uneven.breakdown_s["grouped_gemm"] == pytest.approx(even.breakdown_s["grouped_gemm"], rel=1e-9)


def test_a_capacity_bounds_what_imbalance_costs() -> None:
    times = [
        simulate(loaded(ExpertLoad(imbalance=2.0, capacity_factor=c))).step_time_s
        for c in (1.0, 1.5, 2.0, 0.0)
    ]
    assert times == sorted(times)
    assert times[2] == pytest.approx(times[3])


def test_drawn_popularities_are_reproducible_and_cost_time() -> None:
    even = simulate(loaded(ExpertLoad()))
    drawn = loaded(ExpertLoad(variation=0.3))
    assert simulate(drawn).step_time_s == simulate(drawn).step_time_s > even.step_time_s
    other = replace(drawn, simulation=replace(drawn.simulation, seed=1))
    assert simulate(other).step_time_s != simulate(drawn).step_time_s


def test_a_grouped_launch_saves_the_host_time_where_experts_are_small() -> None:
    run = load_run("qwen3-30b-a3b-16-h100", ["training.seq_length=512"])
    fused = replace(run, runtime=replace(run.runtime, moe_grouped_gemm="fused"))
    assert simulate(fused).step_time_s < simulate(run).step_time_s


def test_overlap_costs_more_than_it_hides_where_the_host_is_the_limit() -> None:
    run = load_run("qwen3-30b-a3b-16-h100", ["runtime.cuda_graphs=none"])
    overlapped = replace(run, runtime=replace(run.runtime, ep_overlap=True))
    assert simulate(overlapped).step_time_s > simulate(run).step_time_s


def test_overlap_with_another_microbatch_hides_most_of_the_all_to_alls() -> None:
    run = load_run("qwen3-30b-a3b-16-h100", ["runtime.cuda_graphs=full"])
    overlapped = replace(run, runtime=replace(run.runtime, ep_overlap=True))
    delayed = replace(run, runtime=replace(run.runtime, ep_overlap=True, delay_wgrad=True))
    apart, together, late = (simulate(each) for each in (run, overlapped, delayed))
    assert together.breakdown_s.get("exposed_ep", 0.0) < 0.2 * apart.breakdown_s["exposed_ep"]
    assert late.step_time_s <= together.step_time_s < apart.step_time_s
    assert together.hardware_tflops_per_gpu * together.step_time_s == pytest.approx(
        apart.hardware_tflops_per_gpu * apart.step_time_s
    )
    assert together.memory["peak_bytes"] > apart.memory["peak_bytes"]  # one more microbatch is alive


def test_products_beside_all_to_alls_are_slower() -> None:
    run = load_run("qwen3-30b-a3b-16-h100", ["runtime.cuda_graphs=full"])
    overlapped = replace(run, runtime=replace(run.runtime, ep_overlap=True))
    apart, together = simulate(run), simulate(overlapped)
    assert together.breakdown_s["grouped_gemm"] > apart.breakdown_s["grouped_gemm"]


def test_shared_experts_hide_a_part_of_the_all_to_alls() -> None:
    run = load_run("mixtral-8x7b-64-h100")
    run = replace(run, model=replace(run.model, n_shared_experts=1))
    overlapped = replace(run, runtime=replace(run.runtime, moe_shared_expert_overlap=True))
    apart, together = simulate(run), simulate(overlapped)
    assert together.step_time_s < apart.step_time_s
    assert together.breakdown_s["exposed_ep"] < apart.breakdown_s["exposed_ep"]


def test_deepseek_v3_on_2048_h800_is_near_its_published_average() -> None:
    """Within 15 %: 14.8T tokens in 2.664M GPU hours (DeepSeek-V3 report), ramp and interruptions included."""
    run = load_run("deepseek-v3-2048-h800")
    assert run.published is not None
    assert simulate(run).step_time_s == pytest.approx(run.published.step_time_s, rel=0.15)
