"""What a cost model answers: a time and how far off it may be."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from simulator.graph.operators import Copy, HostUpdate, KernelOp


class Estimate(NamedTuple):
    """``random`` and ``site`` are relative standard errors; ``clock`` is the share of its rate at full clock
    that the kernel keeps in training (:mod:`simulator.cost.sustained`).

    ``random`` is independent from kernel to kernel (the fit's own residual); ``site`` is common to all
    kernels of a class on one machine (clocks, power, library version), so it does not average out.
    """

    seconds: float
    kernel_class: str  # gemm, grouped_gemm, attention, norm, activation, optimizer, copy, ...
    random: float
    site: float
    clock: float = 1.0


class KernelModel(Protocol):
    """Anything that can time a kernel."""

    def estimate(self, op: KernelOp | Copy | HostUpdate) -> Estimate:
        """The time of one operator running alone, launch latency on the device included."""
        ...
