"""Memory never rises where less is kept or more is sharded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.memory.report import StageMemory
from simulator.partition.plan import plan_run
from simulator.simulate import simulate_memory
from simulator.spec.recompute import Recompute
from simulator.spec.rules import broken_rules
from simulator.spec.run import RunSpec
from simulator.spec.sharding import FullySharded, GatherBuffers

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


def test_gradients_reduced_once_a_step_are_whole_between_first_and_last_backward(make_run: MakeRun) -> None:
    """PyTorch's FSDP in a pipeline whose first device keeps everything until its last chunk's backward."""

    def first_device(buffers: GatherBuffers, **layout: object) -> StageMemory:
        run = make_run(zero=3, gpus=8, fsdp=FullySharded(buffers=buffers, gradient_sync="step"), **layout)
        return simulate_memory(run).stages[0]

    pipeline = {"pp": 2, "vp": 4, "global_batch_size": 8}  # two microbatches: all alive after the warm-up
    lazy, buffered = first_device("copied", **pipeline), first_device("in-place", **pipeline)
    chunks = plan_run(make_run(zero=3, gpus=8, **pipeline)).chunks
    assert lazy.activations == buffered.activations
    held = [chunk.parameters * 4 for chunk in chunks[::2]]
    assert buffered.gradients - lazy.gradients == pytest.approx(sum(held) - held[-1])

    lazy, buffered = first_device("copied"), first_device("in-place")  # later microbatches find the first's
    assert lazy.gradients == buffered.gradients


@pytest.mark.parametrize("layers", [1, 2, 4, 8])
def test_offloaded_layers_never_take_more(make_run: MakeRun, layers: int) -> None:
    fewer = simulate_memory(make_run(activation_offload_layers=layers - 1)).peak_bytes
    assert simulate_memory(make_run(activation_offload_layers=layers)).peak_bytes <= fewer * (1 + 1e-12)
