"""The kernel model of a device: every operator has a time, answers are cached, errors say what lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.cost.catalog import flat_profile, kernels_for
from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import kernel_profile_names, load_kernel_profile
from simulator.graph.operators import Attention, Copy, Gemm, GroupedGemm, MemoryBound
from simulator.spec.errors import SpecError
from simulator.spec.load import load_cluster, load_device

KINDS = [
    "norm",
    "rope",
    "activation",
    "dropout_add",
    "softmax",
    "cross_entropy",
    "embedding",
    "cast",
    "quantize",
    "transpose",
    "permute",
    "unpermute",
    "router",
    "optimizer",
    "grad_norm",
    "zero",
    "accumulate",
    "bias_grad",
]
H100 = load_device("h100-sxm5-80gb")


@given(kind=st.sampled_from(KINDS), size=st.floats(0.0, 1e11), kernels=st.integers(1, 10))
@settings(deadline=None)
def test_memory_bound_kernels_stay_below_bandwidth(kind: str, size: float, kernels: int) -> None:
    model = Kernels(H100, load_kernel_profile(H100.name))
    op = MemoryBound(name="op", kind=kind, read_bytes=size, write_bytes=size / 2, kernels=kernels)
    estimate = model.estimate(op)
    assert np.isfinite(estimate.seconds)
    assert estimate.seconds >= op.bytes / H100.memory_bandwidth
    assert estimate.kernel_class == kind
    assert 0 < estimate.random < 1
    assert 0 < estimate.site < 1


@pytest.mark.parametrize("name", [n for n in kernel_profile_names() if n != "b200-simumax"])
def test_every_device_times_every_operator_in_its_precisions(name: str) -> None:
    device = load_device(name)
    model = Kernels(device, load_kernel_profile(device.kernels or device.name))
    low = {"fp8": ("fp8", "fp8_block", "mxfp8"), "fp4": ("nvfp4",)}
    dtypes = [p for key in device.peak_flops for p in low.get(key, (key,))]
    for dtype in dtypes:
        for m in (1, 4096):
            for role in ("forward", "dgrad", "wgrad"):
                dense = Gemm(name="g", m=m, n=1024, k=4096, dtype=dtype, role=role)
                grouped = GroupedGemm(name="e", groups=8, rows=m, n=1024, k=512, dtype=dtype, role=role)
                for op in (dense, grouped):
                    assert model.estimate(op).seconds >= op.flops / model.peak(dtype)


def test_flat_profile_gives_plain_rooflines() -> None:
    model = Kernels(
        H100, flat_profile(gemm_efficiency=0.5, bandwidth=0.8, fixed_s=2e-6, random=0.1, site=0.2)
    )
    gemm = Gemm(name="g", m=4096, n=4096, k=4096)
    assert model.estimate(gemm)[1:] == ("gemm", 0.1, 0.2, 1.0)
    assert model.estimate(gemm).seconds == pytest.approx(gemm.flops / (0.5 * 989.4e12) + 2e-6)
    norm = MemoryBound(name="n", kind="norm", read_bytes=1e8, write_bytes=1e8, kernels=2)
    assert model.estimate(norm).seconds == pytest.approx(2e8 / (0.8 * 3.352e12) + 4e-6)
    core = Attention(
        name="a", batch=1, seq_q=4096, seq_kv=4096, heads=32, kv_heads=32, qk_head_dim=128, v_head_dim=128
    )
    assert model.estimate(core).seconds == pytest.approx(core.flops / 989.4e12 + 2e-6)


def test_accumulating_a_weight_gradient_costs_more() -> None:
    model = Kernels(H100, load_kernel_profile(H100.name))
    plain = Gemm(name="w", m=4096, n=4096, k=8192, role="wgrad", output_bytes_per_element=4.0)
    added = Gemm(
        name="w", m=4096, n=4096, k=8192, role="wgrad", output_bytes_per_element=4.0, accumulate=True
    )
    ratio = model.estimate(added).seconds / model.estimate(plain).seconds
    assert 1.01 < ratio < 1.2


def test_experts_with_a_launch_each_take_as_long_as_ordinary_products() -> None:
    model = Kernels(H100, load_kernel_profile(H100.name))
    one = Gemm(name="g", m=512, n=1024, k=4096)
    experts = GroupedGemm(name="e", groups=16, rows=16 * 512, n=1024, k=4096, apart=True)
    assert model.estimate(experts).seconds == pytest.approx(16 * model.estimate(one).seconds)
    gradient = Gemm(name="w", m=1024, n=4096, k=512, role="wgrad")
    assert model.estimate(replace(experts, role="wgrad")).seconds == pytest.approx(
        16 * model.estimate(gradient).seconds
    )


def test_copies_use_the_host_link() -> None:
    cluster = load_cluster("dgx-h100-ndr")
    model = kernels_for(cluster)
    seconds = model.estimate(Copy(name="c", kind="h2d", size_bytes=1e10)).seconds
    assert 1e10 / cluster.host.link.bandwidth < seconds < 1.5e10 / cluster.host.link.bandwidth
    assert model.launch_s == cluster.host.kernel_launch_s


def test_a_copy_without_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the host"):
        Kernels(H100, flat_profile()).estimate(Copy(name="c", kind="h2d", size_bytes=1.0))


def test_a_precision_the_device_lacks_is_refused_with_those_it_has() -> None:
    a100 = load_device("a100-sxm4-80gb")
    with pytest.raises(SpecError, match=r"a100-sxm4-80gb has no fp8(.|\n)*bf16"):
        Kernels(a100, flat_profile()).estimate(Gemm(name="g", m=8, n=8, k=8, dtype="fp8"))


def test_an_unknown_attention_kernel_is_refused() -> None:
    with pytest.raises(SpecError, match="flash3"):
        Kernels(H100, load_kernel_profile(H100.name), attention="flash9")


def test_fp16_and_bf16_share_their_rates() -> None:
    model = Kernels(H100, load_kernel_profile(H100.name))
    times = {
        dtype: model.estimate(Gemm(name="g", m=2048, n=2048, k=2048, dtype=dtype))
        for dtype in ("fp16", "bf16")
    }
    assert times["fp16"] == times["bf16"]


def test_equal_operators_are_estimated_once() -> None:
    model = Kernels(H100, load_kernel_profile(H100.name))
    first, again = (model.estimate(Gemm(name="g", m=128, n=4096, k=4096)) for _ in range(2))
    assert first is again
