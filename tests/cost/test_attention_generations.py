"""Generations of attention kernels against the rates their papers print."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest

from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import kernel_profile_names, load_kernel_profile
from simulator.graph.operators import Attention
from simulator.spec.errors import SpecError
from simulator.spec.load import load_device

GENERATIONS = [
    (device, generation)
    for device in kernel_profile_names()
    if device not in {"b200-simumax", "gtx-580-3gb"}  # a site; no 16-bit arithmetic
    for generation in load_kernel_profile(device).attention
]
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 65536)


def core(
    seq: int, direction: Literal["forward", "backward"], *, causal: bool, dtype: str = "bf16"
) -> Attention:
    """The papers' benchmark: 16k tokens, 2048 wide, heads of 128."""
    return Attention(
        name="core",
        batch=max(1, 16384 // seq),
        seq_q=seq,
        seq_kv=seq,
        heads=16,
        kv_heads=16,
        qk_head_dim=128,
        v_head_dim=128,
        causal=causal,
        direction=direction,
        dtype=dtype,
    )


def kernels(device: str, generation: str) -> Kernels:
    return Kernels(load_device(device), load_kernel_profile(device), attention=generation)


def tflops(
    device: str, generation: str, *directions: Literal["forward", "backward"], causal: bool = False
) -> float:
    model = kernels(device, generation)
    ops = [core(16384, direction, causal=causal) for direction in directions]
    return sum(op.flops for op in ops) / sum(model.estimate(op).seconds for op in ops) / 1e12


def test_flash_attention_2_on_h100() -> None:
    """335 TFLOP/s both directions (Dao 2023, section 4.1); forward 35 % of 989 (Shah 2024, section 1)."""
    assert tflops("h100-sxm5-80gb", "flash2", "forward", "backward") == pytest.approx(335, rel=0.1)
    assert tflops("h100-sxm5-80gb", "flash2", "forward") == pytest.approx(0.35 * 989, rel=0.1)


def test_flash_attention_3_is_one_and_a_half_to_two_times_as_fast() -> None:
    """Shah 2024, abstract: 1.5-2.0 times FlashAttention-2 forward; section 4.1: 1.5-1.75 backward."""
    forward = tflops("h100-sxm5-80gb", "flash3", "forward") / tflops("h100-sxm5-80gb", "flash2", "forward")
    backward = tflops("h100-sxm5-80gb", "flash3", "backward") / tflops("h100-sxm5-80gb", "flash2", "backward")
    assert 1.5 < forward < 2.1
    assert 1.4 < backward < 1.85


@pytest.mark.parametrize("causal", [True, False])
def test_earlier_generations_on_a100(causal: bool) -> None:
    """Dao 2023, sections 1 and 4.1: FlashAttention 30-50 % forward and 25-35 % backward of 312; Triton's
    1.3-1.5 times as slow as FlashAttention-2 forward, twice backward."""
    device = "a100-sxm4-80gb"
    assert 0.30 < tflops(device, "flash1", "forward") / 312 < 0.50
    assert 0.25 < tflops(device, "flash1", "backward") / 312 < 0.35
    forward, backward = (
        tflops(device, "flash2", direction, causal=causal)
        / tflops(device, "triton", direction, causal=causal)
        for direction in ("forward", "backward")
    )
    assert 1.25 < forward < 1.5
    assert 1.85 < backward < 2.1


@pytest.mark.parametrize(
    ("device", "order"),
    [
        ("a100-sxm4-80gb", ("flash2", "triton", "flash1")),
        ("h100-sxm5-80gb", ("flash3", "flash2", "triton")),
    ],
)
@pytest.mark.parametrize("seq", LENGTHS)
def test_later_generations_are_faster_at_every_length(device: str, order: tuple[str, ...], seq: int) -> None:
    ops = [core(seq, direction, causal=True) for direction in ("forward", "backward")]
    times = [sum(kernels(device, name).estimate(op).seconds for op in ops) for name in order]
    assert all(earlier < later for earlier, later in pairwise(times))


@pytest.mark.parametrize(("device", "generation"), GENERATIONS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_physics_of_every_generation(
    device: str, generation: str, direction: Literal["forward", "backward"]
) -> None:
    """Below the peak; longer sequences of the same tokens take longer; half the square half the time."""
    model = kernels(device, generation)
    dtype = "bf16" if "bf16" in model.device.peak_flops else "fp16"
    ops = [core(seq, direction, causal=True, dtype=dtype) for seq in LENGTHS]
    times = [model.estimate(op).seconds for op in ops]
    assert times == sorted(times)
    assert all(seconds > op.flops / model.peak(dtype) for op, seconds in zip(ops, times, strict=True))
    whole = model.estimate(core(LENGTHS[-1], direction, causal=False, dtype=dtype)).seconds
    assert times[-1] / whole == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(("device", "generation"), GENERATIONS)
def test_rates_from_papers_are_marked_and_unsure(device: str, generation: str) -> None:
    profile = load_kernel_profile(device)
    for fit in (profile.attention[generation].forward, profile.attention[generation].backward):
        if fit.basis == "literature":
            assert generation != profile.default_attention
            assert fit.site >= 0.2
            assert fit.held_out is None
            assert "FlashAttention" in " ".join(fit.sources)


def test_a_generation_a_profile_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(SpecError, match=r"runtime.attention(.|\n)*flash3(.|\n)*flash1, triton, flash2"):
        kernels("a100-sxm4-80gb", "flash3")
