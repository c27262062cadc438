"""A layer as a list of nodes: what runs forward, what runs backward, what is kept in between."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from simulator.graph.operators import DTYPE_BYTES, Attention, Gemm, KernelOp, MemoryBound
from simulator.graph.precision import Recipe

Transients = tuple[tuple[float, ...], tuple[float, ...]]
"""Bytes of tensors that exist only while a node runs, forward and backward, in the order they come."""


class Region(Enum):
    """How tensor parallelism may divide a node (Shoeybi 2019; Korthikanti 2022, figure 5)."""

    SEQUENCE = "sequence"  # token-wise work on the residual stream: split over tokens by SP, else repeated
    COLUMN = "column"  # GEMM with split output features; needs the whole input
    ROW = "row"  # GEMM with split input features; its output is a partial sum
    FEATURE = "feature"  # work on split features: heads, FFN width, vocabulary
    EMBEDDING = "embedding"  # look-up in a split vocabulary; its output is a partial sum
    CHANNEL = "channel"  # product with split outputs whose input is split by channels too
    # Routed experts: rows are copies of tokens, on the ranks that hold their experts; ETP splits features.
    DISPATCH = "dispatch"  # token-wise as SEQUENCE; then the rows travel to their experts
    ARRIVAL = "arrival"  # the first work on rows that have come
    EXPERT_COLUMN = "expert column"  # grouped GEMM with split output features
    EXPERT_FEATURE = "expert feature"  # work on split features of rows
    EXPERT_ROW = "expert row"  # grouped GEMM with split input features
    DEPARTURE = "departure"  # the last work on rows before they travel back
    COMBINE = "combine"  # token-wise as SEQUENCE, on rows that have come back


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An activation kept for the backward pass. Equal names within a layer are one tensor.

    ``origin`` is the module that makes it: recomputing that module makes it again.
    """

    name: str
    bytes: float
    region: Region
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """A linear product in a narrow format; ``input_done``: the kernel before it has quantised its input."""

    recipe: Recipe
    input_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One forward operator with its gradients.

    ``input_gradient`` must run before the previous layer's backward can start; ``weight_gradient`` may wait
    (zero-bubble schedules move it). ``boundary_bytes`` is the whole activation that crosses into a COLUMN
    node or out of a ROW or EMBEDDING node. ``reductions`` are sizes of small all-reduces over split features
    that follow the forward operator (vocabulary-parallel loss). ``parameters`` are divided with the region,
    ``replicated_parameters`` are not. ``products`` are the output widths of projections fused into one
    product, in the order in which other software runs them.
    """

    forward: KernelOp
    module: str
    region: Region
    input_gradient: tuple[KernelOp, ...] = ()
    weight_gradient: tuple[KernelOp, ...] = ()
    boundary_bytes: float = 0.0
    reductions: tuple[float, ...] = ()
    parameters: float = 0.0
    replicated_parameters: float = 0.0
    saves: tuple[Tensor, ...] = ()
    beside: bool = False  # runs beside the dispatch or combine under way (overlapped shared experts)
    products: tuple[int, ...] = ()
    transients: Transients = ((), ())
    trained: bool = True  # its parameters have gradients and optimizer states
    quantization: Quantization | None = None  # of a linear layer's operands; None: all in 16 bits or more
    captured: bool = True  # a CUDA graph of its layer holds it, where there is one
    enters: float = 0.0  # bytes that must come as whole sequences of some heads where CP ranks share tokens
    leaves: float = 0.0  # bytes that go back to a rank's tokens after it
    groups: int = 0  # of query heads: the work is needed only where a rank has more than one of so many
    host_waits: bool = False  # until the work before it is done, if the host issues its kernels one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGraph:
    """A layer, the embedding or the head. Equal ``kind`` means equal work."""

    kind: str
    nodes: tuple[Node, ...]
    input_bytes: float = 0.0  # the activation that enters it, whole: what full recompute keeps

    @property
    def forward_flops(self) -> float:
        """FLOPs of one forward pass, memory-bound work not counted."""
        return sum(node.forward.flops for node in self.nodes)

    @property
    def backward_flops(self) -> float:
        """FLOPs of both gradients."""
        return sum(op.flops for node in self.nodes for op in (*node.input_gradient, *node.weight_gradient))

    @property
    def parameters(self) -> float:
        """Elements of all weights, whole."""
        return sum(node.parameters + node.replicated_parameters for node in self.nodes)


def linear(
    name: str,
    *,
    module: str,
    region: Region,
    tokens: int,
    inputs: int,
    outputs: int,
    dtype: str,
    bias: bool = False,
    grad_bytes: float = 4.0,
    fused_accumulation: bool = True,
    products: tuple[int, ...] = (),
    saves: tuple[Tensor, ...] = (),
) -> Node:
    """A linear layer [tokens, inputs] → [tokens, outputs] whose weight gradient accumulates into the main
    gradient.

    ``bias`` is for column-parallel layers; a row-parallel one's is added after the reduction, with the
    residual.
    """
    forward = Gemm(name=name, m=tokens, n=outputs, k=inputs, dtype=dtype)
    weight = accumulated_gradient(forward, grad_bytes, fused=fused_accumulation)
    if bias:
        weight += (bias_gradient(name, tokens * outputs * DTYPE_BYTES["bf16"]),)
    row = region is Region.ROW
    return Node(
        forward=forward,
        module=module,
        region=region,
        input_gradient=(input_gradient(forward),),
        weight_gradient=weight,
        boundary_bytes=tokens * (outputs if row else inputs) * DTYPE_BYTES["bf16"],
        parameters=float(inputs * outputs + (outputs if bias else 0)),
        products=products,
        saves=saves,
    )


def bias_gradient(name: str, size_bytes: float) -> MemoryBound:
    """Sums an output gradient over its tokens."""
    return MemoryBound(name=f"{name}.bias_grad", kind="bias_grad", read_bytes=size_bytes, write_bytes=0.0)


def input_gradient(forward: Gemm) -> Gemm:
    """dX = dY·W: [m, n] × [n, k]."""
    return replace(forward, name=f"{forward.name}.dgrad", n=forward.k, k=forward.n, role="dgrad")


def accumulated_gradient(forward: Gemm, grad_bytes: float, *, fused: bool) -> tuple[KernelOp, ...]:
    """dW += dYᵀ·X: [n, m] × [m, k], added to the main gradient by the GEMM itself or by a kernel after it."""
    name = f"{forward.name}.wgrad"
    gemm = replace(forward, name=name, m=forward.n, n=forward.k, k=forward.m, role="wgrad")
    if fused:
        return (replace(gemm, output_bytes_per_element=grad_bytes, accumulate=True),)
    weights = float(forward.batch * forward.n * forward.k)
    add = MemoryBound(
        name=f"{name}.accumulate",
        kind="accumulate",
        read_bytes=weights * (gemm.output_bytes_per_element + grad_bytes),
        write_bytes=weights * grad_bytes,
    )
    return (gemm, add)


def product(
    name: str, *, module: str, batch: int, m: int, n: int, k: int, dtype: str, saves: tuple[Tensor, ...] = ()
) -> Node:
    """A product of two activations (unfused attention): both gradients are input gradients."""
    forward = Gemm(name=name, batch=batch, m=m, n=n, k=k, dtype=dtype)
    left = replace(forward, name=f"{name}.dleft", n=k, k=n, role="dgrad")
    right = replace(forward, name=f"{name}.dright", m=k, k=m, role="dgrad")
    return Node(
        forward=forward, module=module, region=Region.FEATURE, input_gradient=(left, right), saves=saves
    )


def elementwise(
    name: str,
    kind: str,
    *,
    module: str,
    region: Region,
    forward: tuple[float, float],
    backward: tuple[float, float] | None,
    weight_gradient: tuple[KernelOp, ...] = (),
    replicated_parameters: float = 0.0,
    reductions: tuple[float, ...] = (),
    kernels: tuple[int, int] = (1, 1),
    saves: tuple[Tensor, ...] = (),
    transients: Transients = ((), ()),
    groups: int = 0,
) -> Node:
    """A memory-bound node; ``forward`` and ``backward`` are (bytes read, bytes written), ``None`` for no
    kernel.
    """
    gradient: tuple[KernelOp, ...] = ()
    if backward is not None:
        gradient = (
            MemoryBound(
                name=f"{name}.backward",
                kind=kind,
                read_bytes=backward[0],
                write_bytes=backward[1],
                kernels=kernels[1],
            ),
        )
    return Node(
        forward=MemoryBound(
            name=name, kind=kind, read_bytes=forward[0], write_bytes=forward[1], kernels=kernels[0]
        ),
        module=module,
        region=region,
        input_gradient=gradient,
        weight_gradient=weight_gradient,
        replicated_parameters=replicated_parameters,
        reductions=reductions,
        saves=saves,
        transients=transients,
        groups=groups,
    )


def flash_attention(forward: Attention, *, module: str, saves: tuple[Tensor, ...]) -> Node:
    """A fused attention core and its backward kernel."""
    backward = replace(forward, name=f"{forward.name}.backward", direction="backward")
    return Node(
        forward=forward, module=module, region=Region.FEATURE, input_gradient=(backward,), saves=saves
    )
