"""Memory never rises where less is kept or more is sharded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.simulate import simulate_memory
from simulator.spec.rules import broken_rules
from simulator.spec.run import FullySharded, Recompute, RunSpec

MakeRun = Callable[..., RunSpec]
LEVELS = (
    Recompute(),
    Recompute(granularity="selective", modules=("core_attn",)),
    Recompute(granularity="selective", modules=("core_attn", "layernorm")),
    Recompute(granularity="selective", modules=("core_attn", "layernorm", "mlp")),
    Recompute(granularity="full", modules=()),
)
LAYOUTS = st.fixed_dictionaries(
    {
        "tp": st.sampled_from([1, 2, 4]),
        "pp": st.sampled_from([1, 2]),
        "vp": st.sampled_from([1, 2]),
        "micro_batch_size": st.sampled_from([1, 2]),
        "attention": st.sampled_from(["flash", "unfused"]),
        "software": st.sampled_from(["megatron", "eager", "compiled"]),
        "gradient_accumulation_fusion": st.booleans(),
    }
)
relaxed = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@relaxed
@given(layout=LAYOUTS)
def test_deeper_recompute_never_takes_more(make_run: MakeRun, layout: dict[str, object]) -> None:
    run = make_run(**layout)
    if broken_rules(run):
        return
    peaks = [
        simulate_memory(replace(run, training=replace(run.training, recompute=level))).peak_bytes
        for level in LEVELS
    ]
    for shallow, deep in pairwise(peaks):
        assert deep <= shallow * (1 + 1e-12)


@relaxed
@given(layout=LAYOUTS)
def test_a_higher_zero_stage_never_takes_more(make_run: MakeRun, layout: dict[str, object]) -> None:
    """Gradients reduced as often: by default PyTorch's FSDP reduces once a step where there is a pipeline."""
    run = make_run(gpus=32, fsdp=FullySharded(gradient_sync="microbatch"), **layout)
    peaks = []
    for zero in range(4):
        sharded = replace(run, parallelism=replace(run.parallelism, zero=zero))
        if not broken_rules(sharded):
            peaks.append(simulate_memory(sharded).peak_bytes)
    for lower, higher in pairwise(peaks):
        assert higher <= lower * (1 + 1e-12)


@pytest.mark.parametrize("layers", [1, 2, 4, 8])
def test_offloaded_layers_never_take_more(make_run: MakeRun, layers: int) -> None:
    fewer = simulate_memory(make_run(activation_offload_layers=layers - 1)).peak_bytes
    assert simulate_memory(make_run(activation_offload_layers=layers)).peak_bytes <= fewer * (1 + 1e-12)
