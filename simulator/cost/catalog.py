"""The kernel model of a cluster, and made-up profiles for tests and thought experiments."""

from __future__ import annotations

from simulator.cost.attention import AttentionCoefficients
from simulator.cost.copy import CopyCoefficients
from simulator.cost.gemm import GemmCoefficients
from simulator.cost.kernels import Kernels
from simulator.cost.memory_bound import MemoryCoefficients
from simulator.cost.profile import FORMAT_VERSION, AttentionKernel, C, Fitted, KernelProfile
from simulator.cost.profile_file import load_kernel_profile
from simulator.cost.sustained import Sustained, sustained_rate
from simulator.spec.cluster import ClusterSpec


def kernels_for(
    cluster: ClusterSpec,
    *,
    profile: KernelProfile | None = None,
    attention: str = "",
    precision: str | None = None,
    sustained: Sustained | None = None,
) -> Kernels:
    """The kernel model of a cluster's device: its own profile, the one it names, or the one given.

    With the ``precision`` of a run, matrix kernels work at the rate that training in it sustains on the
    device; without, at that of short benchmarks. A profile of one's own site knows its rates itself.
    ``sustained`` is to be taken instead.
    """
    device = cluster.device
    chosen = profile or load_kernel_profile(device.kernels or device.name)
    known = None if precision is None else sustained_rate(chosen.name, precision)
    shipped = Sustained() if known is None else Sustained(known.factor, known.error)
    return Kernels(device, chosen, host=cluster.host, attention=attention, sustained=sustained or shipped)


def flat_profile(
    *,
    gemm_efficiency: float = 1.0,
    attention_efficiency: float = 1.0,
    bandwidth: float = 1.0,
    fixed_s: float = 0.0,
    random: float = 0.0,
    site: float = 0.0,
) -> KernelProfile:
    """A profile of plain rooflines, the same for every precision: times follow from FLOPs and bytes by
    hand."""

    def fitted(coefficients: C) -> Fitted[C]:
        return Fitted(coefficients=coefficients, random=random, site=site, basis="assumption")

    gemm = fitted(
        GemmCoefficients(efficiency=gemm_efficiency, bandwidth=bandwidth, fixed_s=fixed_s, tiled=False)
    )
    attention = fitted(
        AttentionCoefficients(
            efficiency=attention_efficiency,
            bandwidth=bandwidth,
            kv_bandwidth=bandwidth,
            fixed_s=fixed_s,
            tiled=False,
        )
    )
    precisions = ("fp32", "tf32", "fp16", "bf16", "fp8", "fp8_block", "mxfp8", "nvfp4")
    return KernelProfile(
        format_version=FORMAT_VERSION,
        name="flat",
        gemm=dict.fromkeys(precisions, gemm),
        grouped_gemm=dict.fromkeys(precisions, gemm),
        attention={"flat": AttentionKernel(forward=attention, backward=attention)},
        memory_bound={"default": fitted(MemoryCoefficients(bandwidth=bandwidth, fixed_s=fixed_s))},
        copy={"default": fitted(CopyCoefficients(bandwidth=bandwidth, fixed_s=fixed_s))},
        default_attention="flat",
    )
