"""Attention: physics for every shape, and how time follows shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cost.attention import AttentionCoefficients, attention_seconds, attention_times
from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import kernel_profile_names, load_kernel_profile
from simulator.graph.operators import Attention
from simulator.spec.load import load_device

DEVICES = [name for name in kernel_profile_names() if name not in {"b200-simumax", "gtx-580-3gb"}]
KERNELS = {name: Kernels(load_device(name), load_kernel_profile(name)) for name in DEVICES}
H100 = KERNELS["h100-sxm5-80gb"]


def core(kernels: Kernels = H100, **changes: object) -> float:
    dtype = "bf16" if "bf16" in kernels.device.peak_flops else "fp16"
    shape = {
        "name": "core",
        "batch": 1,
        "seq_q": 4096,
        "seq_kv": 4096,
        "heads": 32,
        "kv_heads": 8,
        "qk_head_dim": 128,
        "v_head_dim": 128,
        "dtype": dtype,
    } | changes
    return kernels.estimate(Attention(**shape)).seconds  # type: ignore[arg-type]


@given(
    device=st.sampled_from(DEVICES),
    batch=st.integers(1, 64),
    seq=st.integers(1, 131_072),
    kv_heads=st.sampled_from((1, 2, 8)),
    share=st.sampled_from((1, 4, 16)),
    dims=st.sampled_from(((64, 64), (96, 96), (128, 128), (160, 160), (192, 128), (256, 256), (512, 512))),
    causal=st.booleans(),
    direction=st.sampled_from(("forward", "backward")),
)
def test_never_above_peak_or_bandwidth(
    device: str,
    batch: int,
    seq: int,
    kv_heads: int,
    share: int,
    dims: tuple[int, int],
    causal: bool,
    direction: str,
) -> None:
    kernels = KERNELS[device]
    dtype = "bf16" if "bf16" in kernels.device.peak_flops else "fp16"
    op = Attention(
        name="core",
        batch=batch,
        seq_q=seq,
        seq_kv=seq,
        heads=kv_heads * share,
        kv_heads=kv_heads,
        qk_head_dim=dims[0],
        v_head_dim=dims[1],
        causal=causal,
        direction=direction,
        dtype=dtype,  # type: ignore[arg-type]
    )
    seconds = kernels.estimate(op).seconds
    assert np.isfinite(seconds)
    assert seconds >= op.flops / kernels.peak(dtype)
    assert seconds >= op.bytes / kernels.device.memory_bandwidth


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_time_grows_with_every_dimension(device: str, direction: str) -> None:
    kernels = KERNELS[device]
    for name, values in {
        "batch": (1, 2, 4, 16),
        "heads": (8, 16, 32, 128),
        "kv_heads": (1, 8, 32),
    }.items():
        times = [core(kernels, **{name: value}, direction=direction) for value in values]
        assert times == sorted(times)
    lengths = [core(kernels, seq_q=s, seq_kv=s, direction=direction) for s in (256, 1024, 1025, 4096, 32768)]
    assert lengths == sorted(lengths)


def test_causal_costs_about_half_of_the_full_square() -> None:
    assert core(seq_q=32768, seq_kv=32768) == pytest.approx(
        0.5 * core(seq_q=32768, seq_kv=32768, causal=False), rel=0.1
    )


def test_a_window_makes_time_linear_in_the_sequence() -> None:
    windowed = [core(seq_q=s, seq_kv=s, window=1024) for s in (16384, 32768)]
    assert windowed[1] / windowed[0] == pytest.approx(2.0, rel=0.1)


def test_backward_costs_more_than_its_flops_ratio_says() -> None:
    assert 2.5 < core(direction="backward") / core() < 4.0


def test_rates_of_published_kernels() -> None:
    """FlashAttention-3 (Shah 2024, figure 5): 600-660 TFLOP/s causal, D 128, 16k on H100;
    FlashAttention-2: 190 on A100."""
    shape = {"batch": 1, "seq_q": 16384, "seq_kv": 16384, "heads": 16, "kv_heads": 16}
    flops = 2 * 16 * 16384**2 * 128
    assert flops / core(**shape) / 1e12 == pytest.approx(620, rel=0.12)
    assert flops / core(KERNELS["a100-sxm4-80gb"], **shape) / 1e12 == pytest.approx(190, rel=0.12)


def test_scalar_and_vector_forms_agree() -> None:
    c = H100.profile.attention["flash3"].forward.coefficients
    from simulator.cost.attention import Core

    rows = [
        (32.0 * b, float(s), s * s / 2.0, float(s), 128.0, 0.0, 2.0, 1.0, 1e7, 1e6)
        for b in (1, 3)
        for s in (100, 5000)
    ]
    vector = attention_times(Core(*np.array(rows).T), H100.rates("bf16"), c)
    scalar = [attention_seconds(Core(*row), H100.rates("bf16"), c) for row in rows]
    assert vector == pytest.approx(scalar, rel=1e-12)


def test_roofline_without_blocks_by_hand() -> None:
    from simulator.cost.attention import Core

    c = AttentionCoefficients(efficiency=0.5, bandwidth=1.0, kv_bandwidth=1.0, fixed_s=1e-6, tiled=False)
    found = attention_seconds(
        Core(32.0, 4096.0, 4096**2 / 2, 4096.0, 128.0, 0.0, 2.0, 1.0, 0.0, 0.0), H100.rates("bf16"), c
    )
    assert found == pytest.approx(32 * 4096**2 / 2 * 4 * 128 / (0.5 * 989.4e12) + 1e-6)
