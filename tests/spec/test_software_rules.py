"""Attention kernels and optimizers that a run may name."""

from __future__ import annotations

import pytest

from simulator.simulate import simulate
from simulator.spec.errors import SpecError
from simulator.spec.load import load_run
from simulator.spec.run import ATTENTION_KERNELS


@pytest.mark.parametrize(
    ("run", "override", "rule", "remedy"),
    [
        ("gpt3-175b-1024-a100", "runtime.attention=flash3", "has no kernels for a100", "flash2"),
        ("gpt3-175b-1024-a100", "runtime.attention=cudnn", "ampere", "flash, flash1, triton, flash2"),
        ("deepseek-v3-1024-h100", "runtime.attention=triton", "heads of 192", "flash2"),
        (
            "llama3-8b-8-h100",
            "parallelism.pp=4 parallelism.dp=1 parallelism.schedule=zb-h1 runtime.overlap_p2p=false",
            "run beside compute",
            "leave it out",
        ),
        ("llama3-8b-8-h100", "runtime.attention=flash4", "flash3", "flash"),
        ("llama3-8b-8-h100", "training.optimizer=sgd runtime.optimizer_fusion=false", "adam", "leave it out"),
        ("llama3-8b-8-h100", "runtime.cuda_graph_scope=[attn]", "needs cuda_graphs layer", "leave it out"),
    ],
)
def test_what_is_refused(run: str, override: str, rule: str, remedy: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_run(run, override.split())
    assert rule in str(caught.value)
    assert remedy in str(caught.value)


def test_a_run_takes_the_time_of_its_kernels() -> None:
    """Newer attention, fewer passes and a fused loss are each quicker."""

    def seconds(*overrides: str) -> float:
        return simulate(load_run("llama3-8b-8-h100", overrides)).step_time_s

    usual = seconds()
    assert usual == seconds("runtime.attention=flash3") < seconds("runtime.attention=flash2")
    assert seconds("runtime.attention=flash2") < seconds("runtime.attention=triton")
    assert seconds("runtime.attention=triton") < seconds("runtime.attention=unfused")
    assert seconds("runtime.software=compiled") < seconds("runtime.software=eager")
    fused = "runtime.cross_entropy_fusion=true"
    assert seconds(fused) < usual < seconds("runtime.optimizer_fusion=false")
    assert seconds(fused, "runtime.cross_entropy_fusion_impl=te") < seconds(fused)


@pytest.mark.parametrize("kernel", ATTENTION_KERNELS)
def test_every_kernel_of_the_vocabulary_runs_on_hopper(kernel: str) -> None:
    assert simulate(load_run("llama3-8b-8-h100", [f"runtime.attention={kernel}"])).step_time_s > 0
