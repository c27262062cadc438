"""What the CPU spends to issue work: kernels one by one, or captured graphs.

The GPU waits for the host where issuing a layer takes longer than running it. Per operator the host pays the
driver's launch of each kernel, the framework's own time (dispatch, autograd, allocator), and for a linear
layer that of its module.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.graph.operators import Collective, Gemm, GroupedGemm, Operator

GRAPH_LAUNCH_S = 20e-6
"""Replaying one captured layer: a graph launch of a few µs whatever its length ("Constant time launch for
straight-line CUDA graphs", NVIDIA 2024) and the copies of its inputs, issued from Python (estimate)."""


HOST_ERROR = 0.4
"""Relative standard error of the time that kernels wait for the host. Issuing them takes up to a fifth more
or less by version of the software, processor and pinning; of the wait, about half of it, that is twice as
much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Host time of a training stack beside the driver's launches, in seconds.

    ``operator_s`` per operator, ``kernel_s`` per kernel of it; more per product of a linear layer
    (``product_s``), per expert of a product that is a loop over experts (``expert_s``), per collective
    (``collective_s``), and per part of a layer that is run by itself to lie beside another microbatch's
    communication (``part_s``).
    """

    operator_s: float
    product_s: float
    kernel_s: float = 0.0
    expert_s: float = 0.0
    collective_s: float = 0.0
    part_s: float = 0.0


# Estimates: eager PyTorch issues each kernel, an operator of its own, in about 10 µs, launch included;
# compiled code calls kernels back to back. Megatron-LM: Python and C++ of Transformer Engine for each linear
# layer and pass, and for each expert of a grouped one (views, cuBLAS's choice and descriptors, events of
# streams, hooks of gradients); parts beside communication run autograd once each. Its numbers are fitted on
# published steps of Qwen3's expert layers on H100 and B200 that wait for the host.
SOFTWARE = {
    "megatron": Software(
        operator_s=15e-6,
        product_s=120e-6,
        kernel_s=9e-6,
        expert_s=35e-6,
        collective_s=40e-6,
        part_s=0.8e-3,
    ),
    "eager": Software(operator_s=0.0, product_s=0.0, kernel_s=6e-6),
    "compiled": Software(operator_s=1e-6, product_s=0.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCosts:
    """Times of the host stream. ``graphs``: what is captured: none, layer (its pass) or full (a step).

    ``thread_speed`` is that of the processor over the one whose times these are.
    """

    kernel_s: float = 0.0
    thread_speed: float = 1.0
    software: Software = Software(operator_s=0.0, product_s=0.0)
    graphs: str = "none"

    def issue(self, op: Operator, kernels: int) -> float:
        """Seconds to issue an operator of so many kernels outside a graph."""
        if not kernels:
            return 0.0
        software = self.software
        own = software.operator_s
        if isinstance(op, Gemm | GroupedGemm):
            own += software.product_s
        if isinstance(op, GroupedGemm) and op.apart:
            own += op.groups * software.expert_s
        if isinstance(op, Collective):
            own += software.collective_s
        return (kernels * (self.kernel_s + software.kernel_s) + own) / self.thread_speed

    @property
    def relaunch_s(self) -> float:
        """Seconds of one more kernel in a call that launches several."""
        return self.kernel_s / self.thread_speed

    @property
    def part_s(self) -> float:
        """Seconds more where the software runs a part of a layer by itself."""
        return self.software.part_s / self.thread_speed

    def launch(self, captured_s: float, eager_s: float) -> float:
        """Seconds to launch work that takes so long operator by operator, by whether a graph may hold it."""
        if self.graphs == "full":
            return 0.0
        if self.graphs == "none" or not captured_s:
            return captured_s + eager_s
        return GRAPH_LAUNCH_S + eager_s
