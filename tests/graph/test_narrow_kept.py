"""Activations kept in fewer bits: what they take, what casting them costs, and where nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.partition.layer_share import LayerShare
from simulator.partition.plan import plan_run
from simulator.simulate import simulate, simulate_memory
from simulator.spec.errors import SpecError
from simulator.spec.load import load_run
from simulator.spec.recompute import Recompute

FP8 = ["training.precision=fp8", "training.fp8_recipe=blockwise"]
TOKENS, WIDTH, HIDDEN = 8192, 14336, 4096  # Llama 3 8B, whose attention is as wide as its residual stream
BLOCKWISE = 1 + 4 / 128


def layer(*kept: str) -> LayerShare:
    keys = [*FP8, "gpus=1", "parallelism={tp: 1}", f"training.narrow_activations=[{', '.join(kept)}]"]
    return plan_run(load_run("llama3-8b-8-h100", keys)).chunks[0].layers[1]


def test_inputs_of_the_activation_take_one_byte_and_their_scales() -> None:
    """Gate and up projection: 2·T·f elements in 8 bits, an fp32 scale per 128 of them."""
    wide, narrow = layer(), layer("mlp_activation_input")
    saved = wide.saved_bytes - narrow.saved_bytes
    assert saved == pytest.approx(2 * TOKENS * WIDTH * (2 - BLOCKWISE))


def test_outputs_of_attention_are_kept_once_in_12_bits() -> None:
    """E5M6 in place of 16 bits for attention's backward and 8 for the projection's weight gradient."""
    wide, narrow = layer(), layer("attention_output")
    saved = wide.saved_bytes - narrow.saved_bytes
    assert saved == pytest.approx(TOKENS * HIDDEN * (2 + BLOCKWISE - (1.5 + 4 / 128)))


def test_casts_cost_time_and_no_flops() -> None:
    wide, narrow = layer(), layer("mlp_activation_input", "attention_output")
    assert (wide.forward.flops, wide.backward.flops) == (narrow.forward.flops, narrow.backward.flops)
    run = load_run("llama3-8b-8-h100", FP8)
    kept = ("mlp_activation_input", "attention_output")
    slower = replace(run, training=replace(run.training, narrow_activations=kept))
    assert 1.0 < simulate(slower).step_time_s / simulate(run).step_time_s < 1.1


def test_deepseek_v3_fits_with_the_activations_that_its_report_keeps_narrow() -> None:
    """DeepSeek-V3 trained on 80 GB (report, section 3.3.3)."""
    run = load_run("deepseek-v3-2048-h800")
    assert simulate_memory(run).verdict == "fits"
    wide = replace(run, training=replace(run.training, narrow_activations=()))
    assert simulate_memory(wide).verdict == "does not fit"


def test_narrow_activations_need_narrow_products() -> None:
    with pytest.raises(SpecError, match="belongs to precision fp8"):
        load_run("llama3-8b-8-h100", ["training.narrow_activations=[attention_output]"])


def test_the_activations_output_may_be_made_again() -> None:
    """All that goes is FC2's input, T·f elements of 2 bytes; all that comes is the activation once more."""
    keys = ["gpus=1", "parallelism={tp: 1}"]
    run = load_run("llama3-8b-8-h100", keys)
    asked = Recompute(granularity="selective", modules=("activation",))
    again = replace(run, training=replace(run.training, recompute=asked))
    plain, shorter = (plan_run(each).chunks[0].layers[1] for each in (run, again))
    assert plain.saved_bytes - shorter.saved_bytes == 2 * TOKENS * WIDTH
    assert plain.backward.flops == shorter.backward.flops
    assert len(shorter.backward.steps) == len(plain.backward.steps) + 1
