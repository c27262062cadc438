"""A backend without a GPU: times come from a kernel model with noise. It rehearses plans and tests the
rest."""

from __future__ import annotations

import numpy as np

from calibration.measure.plan import Case
from calibration.measure.session import Timing
from simulator.cost.kernels import Kernels
from simulator.graph.operators import Attention, Copy, Gemm, GroupedGemm, KernelOp, MemoryBound

_COPIES = {"h2d": "h2d", "d2h": "d2h"}


class SimulatedBackend:
    """Answers from ``kernels``, times ``slowdown``, with relative noise; the same numbers for the same
    seed."""

    def __init__(self, kernels: Kernels, *, slowdown: float = 1.0, noise: float = 0.0, seed: int = 0) -> None:
        self.gpu = kernels.device.name
        self._kernels = kernels
        self._slowdown = slowdown
        self._noise = noise
        self._random = np.random.default_rng(seed)

    def describe(self) -> dict[str, str]:
        """What the times depend on."""
        return {"backend": "simulated", "profile": self._kernels.profile.name}

    def refuses(self, case: Case) -> str:
        """Copies need a host that the model may lack."""
        return "the model has no host" if case.kind == "copy" and self._kernels.host is None else ""

    def time(self, case: Case) -> Timing:
        """The model's time, with noise."""
        seconds = self._kernels.estimate(_operator(case)).seconds * self._slowdown
        jitter = float(np.exp(self._noise * self._random.standard_normal()))
        return Timing(seconds=seconds * jitter, spread=self._noise, repeats=1)


def _operator(case: Case) -> KernelOp | Copy:
    if case.kind == "gemm_training":
        m, n, k = (case.number(name) for name in ("m", "n", "k"))
        return Gemm(name="gemm", m=m, n=n, k=k, dtype=case.text("dtype"))
    if case.kind == "grouped_gemm_training":
        groups = case.number("num_groups")
        rows = groups * case.number("m_per_group")
        return GroupedGemm(name="grouped", groups=groups, rows=rows, n=case.number("n"), k=case.number("k"))
    if case.kind == "attention_training":
        return Attention(
            name="core",
            batch=case.number("batch"),
            seq_q=case.number("seq"),
            seq_kv=case.number("seq"),
            heads=case.number("heads"),
            kv_heads=case.number("kv_heads"),
            qk_head_dim=case.number("qk_head_dim"),
            v_head_dim=case.number("v_head_dim"),
            direction="forward" if case["direction"] == "fwd" else "backward",
        )
    if case.kind == "memory_bound":
        read, written = float(case.text("read_bytes")), float(case.text("write_bytes"))
        return MemoryBound(name="stream", kind=case.text("kind"), read_bytes=read, write_bytes=written)
    kind = "h2d" if case["kind"] == "h2d" else "d2h"
    return Copy(name="copy", kind=kind, size_bytes=case.number("size_bytes"))  # type: ignore[arg-type]
