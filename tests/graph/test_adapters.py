"""LoRA: frozen products lose their weight gradients, adapters add six FLOPs per weight and token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.graph.adapters import adapter_weights, untrained_flops
from simulator.partition.plan import RunPlan, plan_run
from simulator.simulate import simulate
from simulator.spec.load import load_run
from simulator.spec.lora import LORA_TARGETS, Lora
from simulator.spec.rules import broken_rules
from simulator.spec.run import RunSpec

RUN = load_run("llama3-8b-8-h100")


def tuned(rank: int, *targets: str, run: RunSpec = RUN, **layout: object) -> RunSpec:
    lora = Lora(rank=rank, targets=targets or LORA_TARGETS)
    parallelism = replace(run.parallelism, dp=0, **layout)  # type: ignore[arg-type]
    return replace(run, training=replace(run.training, lora=lora), parallelism=parallelism)


def trained(plan: RunPlan) -> float:
    """Trained parameters of a pipeline, those that TP replicates counted once."""
    layers = [layer for chunk in plan.chunks for layer in chunk.layers]
    replicated = sum(layer.replicated_parameters for layer in layers)
    return (sum(layer.parameters for layer in layers) - replicated) * plan.tensor.size + replicated


@settings(max_examples=20)
@given(
    rank=st.sampled_from([8, 16, 64]),
    targets=st.sets(st.sampled_from(LORA_TARGETS), min_size=1),
    tp=st.sampled_from([1, 2, 4]),
    pp=st.sampled_from([1, 2]),
)
def test_work_is_that_of_the_whole_model_less_what_is_not_trained(
    rank: int, targets: set[str], tp: int, pp: int
) -> None:
    run = tuned(rank, *sorted(targets), tp=tp, pp=pp)
    plan, whole = plan_run(run), plan_run(tuned(0, tp=tp, pp=pp))
    tokens = run.training.global_batch_size // run.dp * run.training.seq_length
    saved = untrained_flops(run.model, run.training.lora, tokens=tokens, vocab_size=plan.padded_vocab_size)
    assert whole.flops_per_replica - plan.flops_per_replica == pytest.approx(saved, rel=1e-9)
    assert trained(plan) == pytest.approx(adapter_weights(run.model, run.training.lora))


def test_adapters_of_llama_have_the_known_size() -> None:
    """Rank 8 on Q, K and V of Llama 3 8B, joined: 32 layers of 8·(4096 + 6144) elements."""
    assert adapter_weights(RUN.model, Lora(rank=8, targets=("linear_qkv",))) == 32 * 8 * (4096 + 6144)


def test_weights_stay_while_gradients_and_states_go() -> None:
    whole, light = simulate(RUN).memory["stages"][0], simulate(tuned(16, "linear_qkv")).memory["stages"][0]
    assert light["weights"] == pytest.approx(whole["weights"], rel=0.01)
    assert light["gradients"] < 0.01 * whole["gradients"]
    assert light["optimizer"] < 0.01 * whole["optimizer"]
    assert light["activations"] < whole["activations"]


@pytest.mark.parametrize("precision", ["bf16", "fp8", "mxfp8"])
def test_a_step_takes_less_than_one_of_the_whole_model_and_more_than_two_thirds(precision: str) -> None:
    run = replace(RUN, training=replace(RUN.training, precision=precision))
    light, whole = simulate(tuned(16, "linear_qkv", run=run)), simulate(run)
    assert 0.6 < light.step_time_s / whole.step_time_s < 0.95
    assert light.mfu == pytest.approx(light.hfu, rel=0.05)


@pytest.mark.parametrize(
    ("run", "key"),
    [
        (tuned(8, zero=3), "parallelism.zero"),
        (tuned(8, tp=4, tp_mode="2d"), "parallelism.tp_mode"),
        (tuned(8, "linear_qkv", "linear_qkv"), "training.lora.targets"),
        (tuned(8, run=load_run("mixtral-8x7b-64-h100")), "model.num_experts"),
        (tuned(8, run=load_run("deepseek-v3-1024-h100")), "model.attention_type"),
    ],
)
def test_what_is_not_modelled_is_refused(run: RunSpec, key: str) -> None:
    assert key in [broken.key_path for broken in broken_rules(run)]
