"""How long one operator takes alone on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from simulator.cost.attention import Core, attention_seconds
from simulator.cost.copy import copy_seconds
from simulator.cost.estimate import Estimate
from simulator.cost.gemm import GemmCoefficients, gemm_seconds
from simulator.cost.grouped_gemm import GroupShape, group_shape
from simulator.cost.memory_bound import memory_bound_seconds
from simulator.cost.profile import C, Fitted, KernelProfile
from simulator.cost.rates import Rates
from simulator.cost.sustained import Sustained, clock_kept
from simulator.graph.operators import (
    DTYPE_BYTES,
    Attention,
    Copy,
    Gemm,
    GroupedGemm,
    HostUpdate,
    KernelOp,
    MemoryBound,
)
from simulator.spec.cluster import DeviceSpec, Host
from simulator.spec.errors import Problem, SpecError

# precision of an operator -> the datasheet rates it may use, best first
_PEAKS = {
    "fp32": ("fp32",),
    "tf32": ("tf32",),
    "fp16": ("fp16", "bf16"),
    "bf16": ("bf16", "fp16"),
    "fp8": ("fp8",),
    "fp8_block": ("fp8",),
    "mxfp8": ("fp8",),
    "nvfp4": ("fp4",),
}
# precision -> the fitted classes it may use, best first
_CLASSES = {
    "fp32": ("fp32", "bf16"),
    "tf32": ("tf32", "bf16"),
    "fp16": ("fp16", "bf16"),
    "bf16": ("bf16", "fp16"),
    "fp8": ("fp8",),
    "fp8_block": ("fp8_block", "fp8"),
    "mxfp8": ("mxfp8", "fp8"),
    "nvfp4": ("nvfp4", "fp8"),
}


def peak_flops(device: DeviceSpec, dtype: str) -> float:
    """Dense rate of a device in a precision, FLOP/s. Raises SpecError where it has none."""
    for key in _PEAKS.get(dtype, ()):
        if key in device.peak_flops:
            return device.peak_flops[key]
    known = ", ".join(sorted(device.peak_flops))
    raise SpecError(
        Problem(value=dtype, rule=f"device {device.name} has no {dtype} arithmetic", suggestion=known)
    )


FP8_ATTENTION_GAIN = 1.2
"""Rate of fp8 attention over bf16: medians of published forward kernels longer than 0.5 ms with heads of 128
are 1.19 on H100 (1,518 shapes) and 1.22 on B200 (1,277 shapes; ai-dynamo/aiconfigurator). Assumed
of backward kernels too."""


HOST_UPDATE_EFFICIENCY, HOST_UPDATE_ERROR = 0.5, 0.1
"""Share of the host's memory bandwidth that an update reaches: DeepSpeed's CPU-Adam takes 0.22 s for 1e9 and
2.57 s for 1e10 parameters of 30 bytes of traffic each, with two sockets of 128 GB/s (ZeRO-Offload, Ren 2021,
table 4)."""


BENCHMARKED = Sustained()


class Kernels:
    """The kernel model of a device: datasheet facts, fitted coefficients, and a cache by operator.

    ``host`` is needed for copies and for ``launch_s``; ``attention`` picks a kernel generation of the
    profile.
    """

    def __init__(
        self,
        device: DeviceSpec,
        profile: KernelProfile,
        *,
        host: Host | None = None,
        attention: str = "",
        sustained: Sustained = BENCHMARKED,
    ) -> None:
        self.device = device
        self.profile = profile
        self.host = host
        self.sustained = (
            sustained  # of a product at the best rate; its error stands for products' own from site
        )
        # to site
        generation = attention or profile.default_attention
        if generation not in profile.attention:
            rule = f"must be an attention kernel of profile {profile.name}"
            known = ", ".join(profile.attention)
            raise SpecError(
                Problem(key_path="runtime.attention", value=generation, rule=rule, suggestion=known)
            )
        self._attention = profile.attention[generation]
        self._cache: dict[KernelOp | Copy | HostUpdate, Estimate] = {}

    @property
    def launch_s(self) -> float:
        """Host time to launch one kernel without CUDA graphs."""
        return self.host.kernel_launch_s if self.host else 0.0

    def estimate(self, op: KernelOp | Copy | HostUpdate) -> Estimate:
        """The time of one operator running alone, launch latency on the device included."""
        found = self._cache.get(op)
        if found is None:
            found = self._cache[op] = self._compute(op)
        return found

    def peak(self, dtype: str) -> float:
        """Dense tensor-core rate of a precision, FLOP/s. Raises SpecError where the device has none."""
        return peak_flops(self.device, dtype)

    def _compute(self, op: KernelOp | Copy | HostUpdate) -> Estimate:
        match op:
            case Gemm():
                return self._gemm(op)
            case Attention():
                return self._attend(op)
            case MemoryBound():
                return self._memory_bound(op)
            case GroupedGemm():
                return self._grouped(op)
            case Copy():
                return self._copy(op)
            case HostUpdate():
                return self._host_update(op)

    def gemm_fit(self, dtype: str) -> Fitted[GemmCoefficients]:
        """The coefficients a dense GEMM of this precision uses."""
        fitted = self._of_dtype(self.profile.gemm, dtype)
        if dtype != "fp32" or dtype in self.profile.gemm:
            return fitted
        return replace(fitted, coefficients=self._on_cuda_cores(fitted.coefficients))

    def _on_cuda_cores(self, c: GemmCoefficients) -> GemmCoefficients:
        """Coefficients of tensor cores for plain fp32: a tile takes its start-up time, not its share of work.

        ``prologue_k`` counts elements of k, of which a slower multiprocessor does fewer in that time.
        """
        fitted_on = self.profile.fitted_on
        known = {"fp32", "sm_count"} <= fitted_on.keys()
        tensor_peak = max((v for k, v in fitted_on.items() if k in ("bf16", "fp16")), default=0.0)
        if not (known and tensor_peak):
            return c
        slower = self.peak("fp32") / self.device.sm_count * fitted_on["sm_count"] / tensor_peak
        return replace(c, prologue_k=c.prologue_k * min(1.0, slower))

    def grouped_gemm_fit(self, dtype: str) -> Fitted[GemmCoefficients]:
        """The coefficients a grouped GEMM of this precision uses."""
        return self._of_dtype(self.profile.grouped_gemm, dtype)

    def rates(self, dtype: str, sustained: float = 1.0) -> Rates:
        """What the device offers a kernel of this precision."""
        rate = self.peak(dtype) * sustained
        return Rates(rate, self.device.memory_bandwidth, self.device.sm_count)

    def _gemm(self, op: Gemm) -> Estimate:
        fitted = self.gemm_fit(op.dtype)
        shape = GroupShape(m=op.m, n=op.n, k=op.k, batch=op.batch)
        return self._product(shape, op, fitted, "gemm")

    def _grouped(self, op: GroupedGemm) -> Estimate:
        shape = group_shape(groups=op.groups, rows=op.rows, n=op.n, k=op.k, role=op.role)
        fitted = self.gemm_fit(op.dtype) if op.apart else self.grouped_gemm_fit(op.dtype)
        return self._product(shape, op, fitted, "grouped_gemm", shape.batch if op.apart else 1.0)

    def _product(
        self,
        shape: GroupShape,
        op: Gemm | GroupedGemm,
        fitted: Fitted[GemmCoefficients],
        kind: str,
        launches: float = 1.0,
    ) -> Estimate:
        """A product in so many equal launches, one after the other."""
        c = fitted.coefficients

        part = shape._replace(batch=shape.batch / launches)._asdict()
        factor = launches * (1.0 + c.accumulate if op.accumulate else 1.0)

        def seconds(rates: Rates) -> float:
            return factor * gemm_seconds(**part, traffic=op.bytes / launches, rates=rates, c=c)

        rates = self.rates(op.dtype, fitted.sustained)
        taken, clock = self._in_training(seconds, rates, op.flops, op.dtype)
        site = fitted.site if kind != "gemm" or self.sustained.error is None else 0.0
        return Estimate(taken, kind, fitted.random, site, clock)

    def _in_training(
        self, seconds: Callable[[Rates], float], rates: Rates, flops: float, dtype: str
    ) -> tuple[float, float]:
        """A matrix kernel's time at the clock that the power limit leaves it, and that clock's share."""
        alone = seconds(rates)
        if self.sustained.factor == 1.0:
            return alone, 1.0
        best = self.gemm_fit(dtype).coefficients.efficiency
        clock = clock_kept(self.sustained.factor, flops / alone / rates.peak / best)
        return (seconds(rates._replace(peak=clock * rates.peak)) if clock != 1.0 else alone), clock

    def _attend(self, op: Attention) -> Estimate:
        forward = op.direction == "forward"
        fitted = self._attention.forward if forward else self._attention.backward
        width, mask = op.qk_head_dim + op.v_head_dim, op.mask
        keys = op.seq_kv if mask is None else mask.keys
        element = DTYPE_BYTES[op.dtype] * (1.0 if forward else 2.5)  # as Attention.bytes counts them
        core = Core(
            heads=op.batch * op.heads,
            queries=op.seq_q if mask is None else mask.queries,
            pairs=op.score_pairs if mask is None else mask.tiles,
            keys=min(op.window or keys, keys),
            head_dim=width / 2.0,
            mixed=float(op.qk_head_dim != op.v_head_dim),
            matmuls=2.0 if forward else 5.0,
            causal=float(op.causal),
            q_bytes=element * op.batch * op.seq_q * op.heads * width,
            kv_bytes=element * op.batch * op.seq_kv * op.kv_heads * width,
        )
        taken, clock = self._in_training(
            lambda rates: attention_seconds(core, rates, fitted.coefficients),
            self._attention_rates(op, fitted.sustained),
            op.flops,
            "bf16" if op.dtype == "fp8" else op.dtype,
        )
        return Estimate(taken, "attention", fitted.random, fitted.site, clock)

    def _attention_rates(self, op: Attention, sustained: float) -> Rates:
        """The softmax between the two products keeps its precision, so fp8 gains less than the peak does."""
        if op.dtype != "fp8":
            return self.rates(op.dtype, sustained)
        self.peak(op.dtype)  # the device has to know the format
        return self.rates("bf16", sustained * FP8_ATTENTION_GAIN)

    def _memory_bound(self, op: MemoryBound) -> Estimate:
        classes = self.profile.memory_bound
        fitted = classes.get(op.kind) or classes["default"]
        seconds = memory_bound_seconds(
            traffic=op.bytes,
            kernels=op.kernels,
            memory_bandwidth=self.device.memory_bandwidth,
            c=fitted.coefficients,
        )
        return Estimate(seconds, op.kind, fitted.random, fitted.site)

    def _copy(self, op: Copy) -> Estimate:
        if self.host is None:
            raise ValueError(f"copy {op.name!r} needs the host of a cluster; this model knows a device only.")
        fitted = self.profile.copy.get(op.kind) or self.profile.copy["default"]
        nvme = op.kind.startswith("nvme")
        rate = self.host.nvme_bandwidth if nvme else self.host.link.bandwidth
        if rate <= 0:
            rule = f"{op.kind} copies need a bandwidth; the cluster's host states none"
            raise SpecError(Problem(value=op.name, rule=rule))
        seconds = copy_seconds(
            size_bytes=op.size_bytes,
            link_bandwidth=rate / op.sharers,
            latency_s=0.0 if nvme else self.host.link.latency_s,
            c=fitted.coefficients,
        )
        return Estimate(seconds, "copy", fitted.random, fitted.site)

    def _host_update(self, op: HostUpdate) -> Estimate:
        if self.host is None or self.host.memory_bandwidth <= 0:
            rule = "work on the host needs its memory_bandwidth; the cluster states none"
            raise SpecError(Problem(value=op.name, rule=rule))
        bandwidth = HOST_UPDATE_EFFICIENCY * self.host.memory_bandwidth / op.sharers
        return Estimate(op.bytes / bandwidth, "optimizer", HOST_UPDATE_ERROR, HOST_UPDATE_ERROR)

    def _of_dtype(self, classes: dict[str, Fitted[C]], dtype: str) -> Fitted[C]:
        for key in _CLASSES.get(dtype, ()):
            if key in classes:
                return classes[key]
        rule = f"kernel profile {self.profile.name} has no coefficients for {dtype}"
        raise SpecError(Problem(value=dtype, rule=rule, suggestion=", ".join(classes)))
