"""Parts of a step against published parts, since errors of whole steps cancel."""

from __future__ import annotations

from functools import cache

import pytest

from simulator.simulate import simulate
from simulator.spec.load import load_run

# Korthikanti et al. 2022 (arXiv 2205.05198), Table 4: one layer of the 22B model, forward and backward, in ms
LAYER_MS = {"plain": 19.6, "sequence": 19.0, "full": 27.2, "selective": 20.9, "selective-sequence": 20.3}
SETTINGS = {
    "plain": ("training.recompute.granularity=none",),
    "sequence": ("training.recompute.granularity=none", "parallelism.sequence_parallel=true"),
    "full": (),
    "selective": (
        "training.recompute.granularity=selective",
        "training.recompute.modules=[core_attn]",
    ),
    "selective-sequence": (
        "training.recompute.granularity=selective",
        "training.recompute.modules=[core_attn]",
        "parallelism.sequence_parallel=true",
    ),
}


@cache
def layer_ms(setting: str) -> float:
    """A layer's forward and backward: what 24 layers add to a step, the optimizer's share taken out."""

    def passes(layers: int) -> float:
        run = load_run(
            "megatron-22b-8-a100-full-recompute",
            [f"model.num_hidden_layers={layers}", *SETTINGS[setting]],
        )
        result = simulate(run)
        return result.step_time_s - result.breakdown_s["optimizer"]

    return (passes(48) - passes(24)) / 24 * 1e3


@pytest.mark.parametrize("setting", LAYER_MS)
def test_a_layer_takes_what_was_published(setting: str) -> None:
    assert layer_ms(setting) == pytest.approx(LAYER_MS[setting], rel=0.08)


@pytest.mark.parametrize("setting", [name for name in LAYER_MS if name != "plain"])
def test_recomputation_and_sequence_parallelism_cost_what_was_published(setting: str) -> None:
    """Ratios do not depend on how fast the GPU is."""
    published = LAYER_MS[setting] / LAYER_MS["plain"]
    assert layer_ms(setting) / layer_ms("plain") == pytest.approx(published, abs=0.03)
