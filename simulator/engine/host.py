"""What the CPU spends to issue work: kernels one by one, or captured graphs.

The GPU waits for the host where issuing a layer takes longer than running it. Per operator the host pays the
driver's launch of each kernel, the framework's own time (dispatch, autograd, allocator), and for a linear
layer that of its module.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.graph.operators import Gemm, GroupedGemm, Operator

GRAPH_LAUNCH_S = 20e-6
"""Replaying one captured layer: a graph launch of a few µs whatever its length ("Constant time launch for
straight-line CUDA graphs", NVIDIA 2024) and the copies of its inputs, issued from Python (estimate)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Host time of a training stack beside the launches themselves, in seconds.

    ``operator_s`` per operator, ``kernel_s`` per kernel of it; ``product_s`` more per product of a linear
    layer.
    """

    operator_s: float
    product_s: float
    kernel_s: float = 0.0


# Estimates: eager PyTorch issues each kernel, an operator of its own, in about 10 µs, launch included;
# Transformer Engine's modules run tens of µs of Python per linear layer and pass; compiled code calls kernels
# back to back.
SOFTWARE = {
    "megatron": Software(operator_s=4e-6, product_s=20e-6),
    "eager": Software(operator_s=0.0, product_s=0.0, kernel_s=6e-6),
    "compiled": Software(operator_s=1e-6, product_s=0.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCosts:
    """Times of the host stream. ``graphs``: what is captured: none, layer (its pass) or full (a step)."""

    kernel_s: float = 0.0
    software: Software = Software(operator_s=0.0, product_s=0.0)
    graphs: str = "none"

    def issue(self, op: Operator, kernels: int) -> float:
        """Seconds to issue an operator of so many kernels outside a graph."""
        if not kernels:
            return 0.0
        module = self.software.product_s if isinstance(op, Gemm | GroupedGemm) else 0.0
        return kernels * (self.kernel_s + self.software.kernel_s) + self.software.operator_s + module

    def launch(self, captured_s: float, eager_s: float) -> float:
        """Seconds to launch work that takes so long operator by operator, by whether a graph may hold it."""
        if self.graphs == "full":
            return 0.0
        if self.graphs == "none" or not captured_s:
            return captured_s + eager_s
        return GRAPH_LAUNCH_S + eager_s
