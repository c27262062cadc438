"""Which published tables the shipped kernel profiles are fitted on, and what their site errors rest on."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.cost.attention import AttentionCoefficients

TRTLLM = "aic-trtllm-1.3.0rc20"

# Between-site errors, with what they rest on.
SITE_GEMM = {
    "ampere": (0.08, "A100 PCIe of SimuMax against A100 SXM of aiconfigurator: 8 % (forward), 12 % (wgrad)"),
    "hopper": (0.10, "assumed between Ampere's 8 % and Blackwell's 20 %: one site only"),
    "blackwell": (
        0.20,
        "B200 of SimuMax 25-27 % slower than B200 of aiconfigurator, as a standard error of either",
    ),
}
SITE_ATTENTION = (0.12, "published sources for one device differ by 10-14 %")
SITE_BACKWARD = (0.15, "one site per device generation")
SITE_MOE = (0.20, "one source; routing, kernels and padding differ between frameworks")
SITE_STREAM = (
    0.15,
    "achieved bandwidth of training kernels differs with fusion and vector width; one source",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Attention kernels by name in a table's ``kernel`` column."""

    name: str
    source: str
    kernel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which tables a device's profile is fitted on. ``tag`` ends the files' names."""

    device: str
    tag: str
    gemm: str  # source
    attention: Generation
    quantize: str = ""  # tag of the quantise table; "": none of this device or its siblings
    moe: str = ""  # tag of the MoE table
    training: str = (
        ""  # name in the ``gpu`` column of the training tables whose site stands for the generation
    )
    accumulate: tuple[str, ...] = ("a100_pcie", "b200")  # sites that timed accumulating weight gradients
    exponentials: float = 1.0  # per clock, over those of the device of ``training``


# Blackwell Ultra (B300, GB300) has twice the special functions of Blackwell for the softmax: 10.7 against 5
# T exponentials/s (NVIDIA, "Inside NVIDIA Blackwell Ultra", 2025, remembered and not read). In the tables the
# head dimension at which the same kernels reach half their rate falls from 127 (GB200) to 67 and 70 (B300,
# GB300).
ULTRA_EXPONENTIALS = 2.0

RECIPES = (
    Recipe(
        device="a100-sxm4-80gb",
        tag="a100",
        gemm="aic-sglang-0.5.10",
        moe="a100",
        training="a100_pcie",
        attention=Generation(name="flash2", source="aic-sglang-0.5.10", kernel="flash_attention"),
        accumulate=("a100_pcie",),
    ),
    Recipe(
        device="h100-sxm5-80gb",
        tag="h100",
        gemm=TRTLLM,
        quantize="h100",
        moe="h100",
        attention=Generation(name="flash3", source="aic-sglang-0.5.14", kernel="fa3"),
    ),
    Recipe(
        device="h200-sxm-141gb",
        tag="h200",
        gemm=TRTLLM,
        quantize="h200",
        moe="h200",
        attention=Generation(name="flash3", source="aic-sglang-0.5.14", kernel="fa3"),
    ),
    Recipe(
        device="b200",
        tag="b200",
        gemm=TRTLLM,
        quantize="b200",
        moe="b200",
        training="b200",
        accumulate=("b200",),
        attention=Generation(name="trtllm", source=TRTLLM, kernel="torch_flow"),
    ),
    Recipe(
        device="b300",
        tag="b300",
        gemm=TRTLLM,
        quantize="b200",
        moe="b200",
        training="b200",
        accumulate=("b200",),
        exponentials=ULTRA_EXPONENTIALS,
        attention=Generation(name="trtllm", source="aic-vllm-0.24.0", kernel="vllm_flashinfer_trtllmprefill"),
    ),
    Recipe(
        device="gb200",
        tag="gb200",
        gemm=TRTLLM,
        quantize="gb200",
        moe="gb200",
        training="b200",
        accumulate=("b200",),
        attention=Generation(name="trtllm", source="aic-vllm-0.24.0", kernel="vllm_flashinfer_trtllmprefill"),
    ),
    Recipe(
        device="gb300",
        tag="gb300",
        gemm=TRTLLM,
        quantize="gb200",
        moe="gb200",
        training="b200",
        accumulate=("b200",),
        exponentials=ULTRA_EXPONENTIALS,
        attention=Generation(name="trtllm", source="aic-vllm-0.24.0", kernel="vllm_flashinfer_trtllmprefill"),
    ),
)

# What too few shapes show of cuDNN's kernels on Blackwell: the head dimension's effect is that of the
# trtllm kernels there, and K and V are read without a paged cache.
CUDNN_START = AttentionCoefficients(
    efficiency=0.9, half_dim=108.0, lone=0.8, bandwidth=0.8, kv_bandwidth=0.8, fixed_s=1e-5
)

# Attention backward on Hopper. FlashAttention-3 (Shah 2024, figures 5 and 6) reaches about 0.85 of its
# forward rate at head dimension 128. One MLA core (batch 1, 4096 tokens, 128 heads, 192/128) of
# DeepSeek's public H800 training trace takes 1235 us forward and 4304 us backward with its pre- and post-
# processing (medians), 2.5 times the FLOPs; what is left falls to the mixed head dimensions.
HOPPER_BACKWARD_SHARE = 0.85
HOPPER_BACKWARD_MIXED = 2.5 / (4304.0 / 1235.0) / HOPPER_BACKWARD_SHARE

# Bandwidth of kernels that only the H800 trace times, over that of plain element-wise kernels in the same
# trace (2.87 TB/s): RMSNorm of 4096 x 7168 reaches 1.6 TB/s forward (the fastest of 13) and 1.0 backward,
# casting with a transpose 2.1 to 2.5. They ran beside communication kernels.
TRACE_STREAMS = {"norm": (0.50, 0.25), "transpose": (0.80, 0.20)}  # relative bandwidth, site error
