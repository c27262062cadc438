"""Asynchronous, post-validated and forward-only schedules in whole runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulator.simulate import simulate, simulate_memory
from simulator.spec.load import load_cluster
from simulator.spec.model import ModelSpec
from simulator.spec.run import Parallelism, RunSpec, Runtime, Training

SmallRun = Callable[..., RunSpec]


@pytest.mark.parametrize(
    ("schedule", "vp", "fields"),
    [
        ("pipedream", 1, {"zero": 0}),
        ("pipedream-2bw", 1, {"zero": 0}),
        ("forward-only", 1, {}),
        ("forward-only", 2, {"zero": 3}),
        ("zb-h2", 1, {"optimizer_post_validation": True}),
        ("1f1b", 1, {"optimizer_post_validation": True}),
        ("zb-v", 2, {"optimizer_post_validation": True}),
    ],
)
def test_classes_and_blocks_give_the_step_time_of_every_rank_and_operator(
    small_run: SmallRun,
    loses_nothing_by_folding: Callable[[RunSpec], None],
    schedule: str,
    vp: int,
    fields: dict[str, object],
) -> None:
    loses_nothing_by_folding(small_run(schedule, pp=2, vp=vp, m=4, **fields))


def test_weight_stashing_keeps_a_version_for_every_microbatch_in_flight(small_run: SmallRun) -> None:
    """p−i versions (Narayanan 2019, section 3.3), two with 2BW (Narayanan 2021, section 3.1)."""
    flushed, stashed, double = (
        simulate_memory(small_run(name, zero=0)) for name in ("1f1b", "pipedream", "pipedream-2bw")
    )
    for i, one in enumerate(flushed.stages):
        assert stashed.stages[i].weights == (4 - i) * one.weights
        assert double.stages[i].weights == 2 * one.weights
        assert stashed.stages[i].optimizer == double.stages[i].optimizer == one.optimizer


def test_without_a_flush_more_comes_through(small_run: SmallRun) -> None:
    took = {
        name: simulate(small_run(name, zero=0)).step_time_s for name in ("1f1b", "pipedream", "pipedream-2bw")
    }
    assert took["pipedream-2bw"] < took["1f1b"]
    assert took["pipedream-2bw"] < took["pipedream"]  # which updates after every microbatch


def test_evaluation_keeps_no_activations_gradients_or_states(small_run: SmallRun) -> None:
    trained, evaluated = simulate(small_run("1f1b")), simulate(small_run("forward-only"))
    first, stages = trained.memory["stages"][0], evaluated.memory["stages"]
    assert all(stage["gradients"] == stage["optimizer"] == 0 for stage in stages)
    assert stages[0]["activations"] < 0.2 * first["activations"]
    assert evaluated.step_time_s < 0.4 * trained.step_time_s
    assert evaluated.hardware_tflops_per_gpu / evaluated.model_tflops_per_gpu == pytest.approx(
        trained.hardware_tflops_per_gpu / trained.model_tflops_per_gpu, rel=0.03
    )
    assert {"optimizer", "exposed_dp"}.isdisjoint(evaluated.breakdown_s)


# Qi et al. 2024 (arXiv 2401.10241), table 4, in samples per GPU and second: layers, hidden size, heads,
# micro batch, devices, microbatches; 1F1B, ZB-1p (equal memory), ZB-2p (twice the memory)
QI_2024 = [
    (22, 2304, 24, 6, 8, 24, 11.8, 12.9, 14.5),
    (30, 4096, 32, 3, 8, 24, 3.50, 3.88, 4.32),
    (46, 5120, 40, 1, 16, 48, 1.40, 1.61, 1.81),
    (62, 6144, 48, 1, 32, 96, 0.76, 0.87, 0.99),
]


def qi_2024(schedule: str, layers: int, hidden: int, heads: int, micro: int, p: int, m: int) -> RunSpec:
    model = ModelSpec(
        name="gpt",
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=heads,
        vocab_size=50257,
        gated_mlp=False,
        hidden_act="gelu",
        norm="layernorm",
        linear_bias=True,
        position_embedding="learned",
        max_position_embeddings=1024,
        tie_word_embeddings=False,
    )
    return RunSpec(
        model=model,
        cluster=load_cluster("a100-sxm4-80gb"),
        gpus=p,
        parallelism=Parallelism(pp=p, schedule=schedule, stage_split="trimmed", zero=0),
        training=Training(
            seq_length=1024, micro_batch_size=micro, global_batch_size=micro * m, precision="fp16"
        ),
        runtime=Runtime(optimizer_post_validation=schedule != "1f1b"),
    )


@pytest.mark.parametrize("row", QI_2024[:3])
def test_zero_bubble_gains_what_qi_et_al_measured(row: tuple[float, ...]) -> None:
    """Up to 23 % with the memory of 1F1B and 31 % with more, in their abstract."""
    *setting, one_f_one_b, zb_1p, zb_2p = row
    took = {
        name: simulate(qi_2024(name, *setting)).step_time_s  # type: ignore[arg-type]
        for name in ("1f1b", "zb-h1", "zb-h2")
    }
    assert took["1f1b"] / took["zb-h1"] == pytest.approx(zb_1p / one_f_one_b, abs=0.05)
    assert took["1f1b"] / took["zb-h2"] == pytest.approx(zb_2p / one_f_one_b, abs=0.07)


def test_the_memory_of_1f1b_is_enough_for_zb_h1() -> None:
    row = QI_2024[1][:6]
    plain, split, rich = (
        simulate_memory(qi_2024(name, *row)).peak_bytes  # type: ignore[arg-type]
        for name in ("1f1b", "zb-h1", "zb-h2")
    )
    assert split < 1.2 * plain < rich
