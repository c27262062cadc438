"""``--set key.path=value`` changes one value, in the file or in what the file names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.spec.errors import SpecError
from simulator.spec.load import load_run
from simulator.spec.recompute import Recompute
from simulator.spec.run import RunSpec

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("parallelism.tp=8", lambda r: r.parallelism.tp, 8),
        ("training.global_batch_size=1_28", lambda r: r.training.global_batch_size, 128),
        ("training.recompute.granularity=full", lambda r: r.training.recompute.granularity, "full"),
        (
            "training.recompute={granularity: full, num_layers: 2}",
            lambda r: r.training.recompute.num_layers,
            2,
        ),
        ("runtime.overlap_grad_reduce=false", lambda r: r.runtime.overlap_grad_reduce, False),
        ("cluster.device.memory_bytes=141 GB", lambda r: r.cluster.device.memory_bytes, 141e9),
        ("cluster.device.peak_flops.fp16=989e12", lambda r: r.cluster.device.peak_flops["fp16"], 989e12),
        (
            "cluster.scale_out.tiers.1.oversubscription=7",
            lambda r: r.cluster.scale_out.tiers[1].oversubscription,
            7,
        ),
        ("cluster.scale_up.link=nvlink4", lambda r: r.cluster.scale_up.link.name, "nvlink4"),
        (
            "cluster.scale_up.link={base: nvlink4, bandwidth: 400 GB/s}",
            lambda r: r.cluster.scale_up.link.bandwidth,
            4e11,
        ),
        ("cluster.device=h100", lambda r: r.cluster.device.name, "h100-sxm5-80gb"),
        ("cluster=dgx-h200", lambda r: r.cluster.name, "dgx-h200"),
        ("model=llama3-8b", lambda r: r.model.name, "llama3-8b"),
        ("model.base=llama3-8b", lambda r: r.model.name, "tiny"),
        (" name = a=b ", lambda r: r.name, "a=b"),
    ],
)
def test_one_value_is_replaced(
    override: str, read: Callable[[RunSpec], object], value: object, good: str, write: Write
) -> None:
    assert read(load_run(write(good), [override])) == value


def test_overrides_apply_in_order_and_reach_into_what_names_stand_for(good: str, write: Write) -> None:
    overrides = [
        "cluster=dgx-h200",
        "cluster.device.memory_bytes=100 GB",
        "cluster.scale_out.tiers.0.nodes=4",
    ]
    cluster = load_run(write(good), overrides).cluster
    assert (cluster.name, cluster.device.memory_bytes) == ("dgx-h200", 100e9)
    assert cluster.scale_out.tiers[0].nodes == 4
    assert load_run(write(good), [*overrides, "cluster=dgx-h200"]).cluster.device.memory_bytes != 100e9


@pytest.mark.parametrize(
    ("override", "key_path", "rule", "suggestion"),
    [
        ("parallelism.tp", "", "key.path=value", "--set parallelism.tp=8"),
        ("=8", "", "key.path=value", ""),
        ("parallelism..tp=8", "", "key.path=value", ""),
        ("paralelism.tp=8", "paralelism", "unknown key", "parallelism"),
        ("schedule=1f1b", "schedule", "unknown key", "parallelism.schedule"),
        ("parallelism.tpp=8", "parallelism.tpp", "unknown key", "tp"),
        ("parallelism.tp=3", "parallelism.tp", "divide num_attention_heads (16)", "2 or 4"),
        ("parallelism.tp=x", "parallelism.tp", "whole number", ""),
        ("parallelism.tp.x=8", "parallelism.tp.x", "parallelism.tp is 4, which has no keys", ""),
        ("cluster.scale_out.tiers.2.nodes=8", "cluster.scale_out.tiers.2.nodes", "indexes 0 to 1", ""),
        ("cluster.scale_out.tiers.leaf=8", "cluster.scale_out.tiers.leaf", "indexes 0 to 1", ""),
        ("cluster=dgx-h1000", "cluster", "must name one of the", "dgx-h100"),
        ("cluster.device=h1000", "cluster.device", "must name one of the", "h100"),
        ("name=[a, b", "name", "not valid YAML", ""),
        ("training.precision=fp61", "training.precision", "one of", "fp16"),
    ],
)
def test_a_wrong_override_is_told_like_a_wrong_file(
    override: str, key_path: str, rule: str, suggestion: str, *, good: str, write: Write
) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(write(good), [override])
    problem = next(problem for problem in caught.value.problems if problem.key_path == key_path)
    assert problem.file == "--set"
    assert rule in problem.rule
    assert suggestion in problem.suggestion
    assert "--set:1" not in str(caught.value)


def test_wrong_overrides_and_wrong_keys_are_told_together(good: str, write: Write) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(write(good.replace("gpus: 64", "gpus: x")), ["parallelism.tpp=8", "training"])
    assert [problem.file == "--set" for problem in caught.value.problems] == [True, False, True]


@pytest.mark.parametrize("nothing", ["", "null", "~"])
def test_an_override_without_a_value_leaves_a_key_out(nothing: str, good: str, write: Write) -> None:
    path = write(good.replace("  precision: bf16", "  precision: fp8\n  recompute: {granularity: full}"))
    overrides = [f"training.{key}={nothing}" for key in ("recompute", "precision", "moe")]
    training = load_run(path, overrides).training
    assert (training.recompute, training.precision) == (Recompute(), "bf16")
    again = load_run(path, [*overrides, "training.recompute.granularity=selective"])
    assert again.training.recompute == Recompute(granularity="selective")


def test_an_override_without_a_value_takes_an_item_from_a_list_and_a_name_from_a_table(
    good: str, write: Write
) -> None:
    overrides = ["cluster.scale_out.tiers.0=", "cluster.device.peak_flops.fp8="]
    cluster = load_run(write(good), overrides).cluster
    assert [tier.name for tier in cluster.scale_out.tiers] == ["spine"]
    assert set(cluster.device.peak_flops) == {"bf16"}


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("gpus=", "whole number"),
        ("cluster=", "mapping"),
        ("training.recomput=", "unknown key"),
        ("runtimes.attention=", "unknown key"),
    ],
)
def test_a_key_that_is_needed_or_unknown_cannot_be_left_out(
    override: str, rule: str, good: str, write: Write
) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(write(good), [override])
    (problem,) = caught.value.problems
    assert (problem.file, rule in problem.rule) == ("--set", True)
    assert "leave it out" not in problem.suggestion
