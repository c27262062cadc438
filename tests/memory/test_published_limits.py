"""Published statements that something does not fit."""

from __future__ import annotations

import pytest

from simulator.simulate import simulate_memory
from simulator.spec.load import load_run

KORTHIKANTI = ["22b-8", "175b-64", "1t-512"]


@pytest.mark.parametrize("size", KORTHIKANTI)
def test_korthikantis_models_need_sequence_parallelism_and_recompute(size: str) -> None:
    """Figure 1 of arXiv 2205.05198: the baseline exceeds an A100's 80 GB, the method stays below."""
    name = f"megatron-{size}-a100-sequence-parallel"
    baseline = ["parallelism.sequence_parallel=false", "training.recompute={granularity: none}"]
    assert simulate_memory(load_run(name, baseline)).verdict == "does not fit"
    assert simulate_memory(load_run(name)).verdict == "fits"


@pytest.mark.parametrize(("layers", "verdict"), [(24, "fits"), (64, "does not fit")])
def test_data_parallelism_alone_holds_1_4_billion_parameters_on_32_gb(layers: int, verdict: str) -> None:
    """Rajbhandari 2020 (arXiv 1910.02054), section 1: DDP runs out of memory beyond 1.4B on a 32 GB V100.

    Width 2048 with 24 and 64 layers: 1.3B and 3.3B parameters.
    """
    settings = [
        f"model.num_hidden_layers={layers}",
        "model.hidden_size=2048",
        "model.intermediate_size=8192",
        "model.num_attention_heads=16",
        "parallelism={zero: 0}",
        "training.recompute={granularity: full}",
    ]
    assert simulate_memory(load_run("gpt-10b-1-v100-zero-offload", settings)).verdict == verdict
