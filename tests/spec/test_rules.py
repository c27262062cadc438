"""Layout rules over whole runs: what needs several keys to go wrong, and that the suggestions hold."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.spec.errors import SpecError
from simulator.spec.load import load_run
from simulator.spec.rules import RULES, broken_rules
from simulator.spec.rules.violation import divisors, near_divisors, near_multiples
from simulator.spec.run import RunSpec

Write = Callable[..., Path]

EXPERTS = ["model.num_experts=8", "model.num_experts_per_tok=2", "model.moe_intermediate_size=512"]


@pytest.fixture(scope="module")
def run() -> RunSpec:
    return load_run("llama3.1-405b-16384-h100")


@pytest.mark.parametrize(
    ("overrides", "key_path", "rule"),
    [
        ([*EXPERTS, "parallelism.ep=3"], "parallelism.ep", "must divide num_experts (8)"),
        ([*EXPERTS, "parallelism.etp=3"], "parallelism.etp", "must divide the experts' width (512)"),
        ([*EXPERTS, "gpus=8", "parallelism.ep=8"], "parallelism.ep", "ep·etp = 8·4 must divide the 4 ranks"),
        (
            [*EXPERTS, "parallelism.sequence_parallel=false"],
            "parallelism.sequence_parallel",
            "needs sequence",
        ),
        (
            [*EXPERTS, "model.num_experts_per_tok=0"],
            "model.num_experts_per_tok",
            "must be 1 to num_experts (8)",
        ),
        (
            [*EXPERTS, "model.first_k_dense_replace=17"],
            "model.first_k_dense_replace",
            "num_hidden_layers (16)",
        ),
        (["parallelism.etp=2"], "parallelism.etp", "tiny has no experts"),
        (["model.attention_type=mla"], "model.kv_lora_rank", "must be given where attention_type is mla"),
        (["training.recompute={method: block}"], "training.recompute.method", "belongs to granularity full"),
        (["training.recompute={modules: [mlp]}"], "training.recompute.modules", "belongs to granularity sel"),
        (
            ["training.recompute={granularity: selective, modules: []}"],
            "training.recompute.modules",
            "must name what is recomputed",
        ),
        (
            ["training.precision=nvfp4"],
            "training.precision",
            "chip has a peak_flops for bf16, fp8, mxfp8 only",
        ),
        (["model.hybrid_layer_pattern=MMMM"], "model.hybrid_layer_pattern", "must hold a letter"),
    ],
)
def test_rules_that_need_several_keys(
    overrides: list[str], key_path: str, rule: str, good: str, write: Write
) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(write(good), overrides)
    assert any(problem.key_path == key_path and rule in problem.rule for problem in caught.value.problems), (
        caught.value
    )


def test_a_legal_run_breaks_no_rule(run: RunSpec) -> None:
    assert broken_rules(run) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"tp": 3}, {"world_size", "tensor_parallel", "sequence_parallel"}),
        ({"dp": 64}, {"world_size"}),
        ({"vp": 5}, {"stage_split"}),
        ({"ep": 2}, {"expert_parallel"}),
        ({"pp": 1}, {"virtual_stages"}),
    ],
)
def test_a_violation_has_the_name_of_its_rule(change: dict[str, int], names: set[str], run: RunSpec) -> None:
    broken = broken_rules(replace(run, parallelism=replace(run.parallelism, **{"dp": 0, **change})))
    assert names <= {violation.name for violation in broken}
    assert {violation.name for violation in broken} <= {rule.__name__ for rule in RULES} | {"not_modelled"}


SIZES = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32])


@given(tp=SIZES, pp=SIZES, vp=SIZES, cp=SIZES, replicas=SIZES, micro=SIZES, batch=st.integers(1, 4096))
def test_rules_judge_any_layout_without_failing(
    tp: int, pp: int, vp: int, cp: int, replicas: int, micro: int, batch: int
) -> None:
    run = load_run("llama3.1-405b-16384-h100")
    layout = replace(run.parallelism, tp=tp, pp=pp, vp=vp, cp=cp, dp=0, schedule="")
    training = replace(run.training, micro_batch_size=micro, global_batch_size=batch)
    changed = replace(run, gpus=tp * pp * cp * replicas, parallelism=layout, training=training)
    broken = {violation.name for violation in broken_rules(changed)}
    assert ("global_batch" in broken) == (batch % (micro * replicas) != 0)
    assert ("stage_split" in broken) == (128 % (pp * vp) != 0)
    assert ("world_size" in broken) is False
    if "global_batch" not in broken and vp > 1:
        assert ("interleaving" in broken) == (batch // (micro * replicas) < pp)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_near_numbers_are_right_and_nearest(number: int, near: int) -> None:
    multiples = [int(word) for word in re.findall(r"\d+", near_multiples(number, near))]
    assert multiples
    assert all(multiple % number == 0 and abs(multiple - near) <= number for multiple in multiples)
    found = [int(word) for word in re.findall(r"\d+", near_divisors(number, near))]
    assert all(number % divisor == 0 for divisor in found)
    low, high = min(found), max(found)
    assert not any(low < divisor < high for divisor in divisors(number))


@given(st.integers(1, 5000))
def test_divisors_are_all_divisors(number: int) -> None:
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


@pytest.mark.parametrize(
    ("noise", "key", "rule"),
    [
        ("slow: [{rank: 8, compute: 0.9}]", "noise.slow.0.rank", "ranks 0 to 7"),
        ("slow: [{node: 1, compute: 0.9}]", "noise.slow.0.node", "nodes 0 to 0"),
        ("slow: [{compute: 0.9}]", "noise.slow.0", "either a rank or a node"),
        ("slow: [{rank: 1}]", "noise.slow.0", "nothing of it is slow"),
        ("slow: [{rank: 1, compute: 0.9}, {rank: 1, nvlink: 0.9}]", "noise.slow.1", "named twice"),
        ("slow: [{rank: 1, nic: 0.5}]", "noise.slow.0.nic", "uses no NIC"),
        ("jitter: {compute: 0.4}", "noise.jitter.compute", "at most 0.3"),
        ("jitter: {gemm: 40 %}", "noise.jitter.gemm", "at most 0.3"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(noise: str, key: str, rule: str) -> None:
    with pytest.raises(SpecError) as refused:
        load_run("llama3-8b-8-h100", [f"noise={{{noise}}}"])
    assert key in str(refused.value)
    assert rule in str(refused.value)
