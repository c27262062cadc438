"""What comes and goes while a layer runs: the operators of its passes in order, with the births and deaths of
their inputs, outputs, gradients and temporaries.

Both passes are walked over the rank's own nodes. Autograd's rules decide how long a tensor lives: an operator's
input dies after it unless it is kept for backward; a kept tensor dies once the last gradient that needs it is
done; the gradient of the residual stream lives through a whole block, since the branch's is added to it at the
block's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.graph.layer import Node, Region, Tensor
from simulator.graph.operators import Attention, Collective, Gemm, GroupedGemm, KernelOp
from simulator.graph.transformer import ACTIVATION_BYTES
from simulator.partition.context import SharedAttention
from simulator.partition.expert import RoutedNode
from simulator.partition.tensor import TensorParallel

ACCUMULATOR_BYTES = 4.0  # FlashAttention-2 sums dQ over blocks of keys in fp32 (`dq_accum` of its backward)
WEIGHT_BYTES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPeaks:
    """Bytes of one layer's passes beside what it keeps.

    ``forward``: the most alive during the forward pass, over all that the layer keeps by its end; never below
    its output. ``backward``: the most alive during the backward pass, over all that it kept; the gradient that
    comes in counts. ``deferred``: what its weight gradients need, once its input gradients are done.
    """

    forward: float
    backward: float
    deferred: float


@dataclass(slots=True)
class _Ledger:
    """Bytes alive now, and the most so far."""

    alive: float = 0.0
    peak: float = 0.0

    def add(self, *sizes: float) -> None:
        self.alive += sum(sizes)
        self.peak = max(self.peak, self.alive)

    def drop(self, *sizes: float) -> None:
        self.alive -= sum(sizes)


def pass_peaks(nodes: Sequence[Node], tp: TensorParallel, *, gradient_tensors: bool) -> PassPeaks:
    """The peaks of one layer's passes.

    Args:
        nodes: a rank's share of a layer, in forward order.
        tp: the rank's tensor parallelism.
        gradient_tensors: weight gradients that no product adds to the main gradient by itself are tensors of
            their own for a moment (not so where they are counted with their bucket).
    """
    flow = _Flow(tuple(nodes), tp)
    return PassPeaks(
        forward=flow.forward_peak(),
        backward=flow.backward_peak(gradient_tensors=gradient_tensors),
        deferred=flow.deferred(),
    )


@dataclass(slots=True)
class _Flow:
    """The sizes that flow between nodes."""

    nodes: tuple[Node, ...]
    tp: TensorParallel
    inputs: list[float] = field(init=False)
    outputs: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = [], []
        size = next((t.bytes for node in self.nodes for t in node.saves), 0.0)
        for node in self.nodes:
            self.inputs.append(self._local(node, _input_bytes(node.forward, size), Region.COLUMN))
            size = self._local(node, _output_bytes(node, size), Region.ROW, Region.EMBEDDING)
            self.outputs.append(size)

    def _local(self, node: Node, size: float, *whole: Region) -> float:
        """A tensor as it is before a gather, or after a reduce-scatter."""
        return size / self.tp.size if self._gathers(node, *whole) else size

    def _gathers(self, node: Node, *regions: Region) -> bool:
        return self.tp.size > 1 and self.tp.sequence and node.region in regions

    def forward_peak(self) -> float:
        ledger, kept = _Ledger(), dict[str, float]()
        arriving = 0.0  # the activation that no node keeps
        for node, size_in, size_out in zip(self.nodes, self.inputs, self.outputs, strict=True):
            new = [t for t in node.saves if t.name not in kept]
            kept.update((t.name, t.bytes) for t in new)
            own = sum(t.bytes for t in new if _is_made_by(node, t))
            claimed = min(arriving, sum(t.bytes for t in new) - own)
            ledger.drop(claimed)
            arriving -= claimed
            leaving = max(0.0, size_out - own)
            exchanged = _exchanged(node, "sent")
            passing = (
                node.boundary_bytes
                if self._gathers(node, Region.COLUMN, Region.ROW, Region.EMBEDDING)
                else 0.0,
                _narrow_bytes(node, size_in),
                exchanged,
                _shared_bytes(node),
            )
            ledger.add(sum(t.bytes for t in new), leaving, *passing)
            ledger.drop(arriving, *passing)
            arriving = leaving
        return ledger.peak - sum(kept.values())

    def backward_peak(self, *, gradient_tensors: bool) -> float:
        ledger = _Ledger()
        last_use = {
            t.name: index for index, node in reversed(list(enumerate(self.nodes))) for t in node.saves
        }
        gradient = self.outputs[-1] if self.nodes else 0.0
        stream = 0.0
        ledger.add(gradient)
        for index in reversed(range(len(self.nodes))):
            node, size_in = self.nodes[index], self.inputs[index]
            if _joins(node):  # the branch's gradient is the stream's own unless dropout masks it
                stream, masked = gradient or stream, sum(t.bytes for t in node.saves)
                gradient = stream if masked else 0.0
                ledger.add(gradient)
            else:
                passing = self._backward_temporaries(node, gradient_tensors=gradient_tensors)
                ledger.add(size_in, *passing)
                ledger.drop(gradient, *passing)
                gradient = size_in
            ledger.drop(*(t.bytes for t in _distinct(node.saves) if last_use[t.name] == index))
            starts_block = stream and (index == 0 or _joins(self.nodes[index - 1]))
            if starts_block:  # added to the stream's
                ledger.drop(gradient)
                gradient = 0.0
        return ledger.peak

    def _backward_temporaries(self, node: Node, *, gradient_tensors: bool) -> tuple[float, ...]:
        around = self._gathers(node, Region.ROW, Region.EMBEDDING) or self._gathers(node, Region.COLUMN)
        whole = self._gathers(node, Region.COLUMN)
        return (
            node.boundary_bytes if around else 0.0,  # the gathered gradient, or the input gathered again
            node.boundary_bytes * (1.0 - 1.0 / self.tp.size) if whole else 0.0,  # dX before its reduction
            _narrow_bytes(node, _output_bytes(node, 0.0)),
            _exchanged(node, "returned"),
            _shared_bytes(node),
            sum(_accumulators(op) for op in node.input_gradient),
            _weight_gradient_bytes(node) if gradient_tensors else 0.0,
        )

    def deferred(self) -> float:
        """Inputs of products with weights, and the gradients of their outputs."""
        kept: dict[str, float] = {}
        for node, size_out in zip(self.nodes, self.outputs, strict=True):
            if node.weight_gradient and isinstance(node.forward, Gemm | GroupedGemm):
                kept.update((t.name, t.bytes) for t in node.saves)
                kept[f"{node.forward.name}.grad"] = size_out
        return sum(kept.values())


def _joins(node: Node) -> bool:
    """Whether a branch is added to the residual stream here."""
    return node.module == "residual"


def _distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({t.name: t for t in tensors}.values())


def _is_made_by(node: Node, tensor: Tensor) -> bool:
    """Whether a kept tensor is this node's own product, not its input."""
    return tensor.origin == node.module and not tensor.name.endswith(".input")


def _output_bytes(node: Node, before: float) -> float:
    """The activation a node hands on; a node without work hands on what it got."""
    op = node.forward
    if isinstance(op, Gemm):
        return op.batch * op.m * op.n * op.output_bytes_per_element
    if isinstance(op, GroupedGemm):
        return op.rows * op.n * op.output_bytes_per_element
    if isinstance(op, Attention):
        return op.batch * op.seq_q * op.heads * op.v_head_dim * ACTIVATION_BYTES
    if op.kind == "cross_entropy":
        return 0.0  # a number per token
    masks = sum(t.bytes for t in node.saves if t.name.endswith(".mask"))
    return op.write_bytes - masks if op.write_bytes else before


def _input_bytes(op: KernelOp, before: float) -> float:
    """The activations a node reads that need a gradient."""
    if isinstance(op, Gemm):
        return op.batch * op.m * op.k * ACTIVATION_BYTES
    if isinstance(op, GroupedGemm):
        return op.rows * op.k * ACTIVATION_BYTES
    if isinstance(op, Attention):
        queries = op.seq_q * op.heads * op.qk_head_dim
        return op.batch * (queries + _key_value_elements(op)) * ACTIVATION_BYTES
    return before


def _key_value_elements(op: Attention) -> int:
    return op.seq_kv * op.kv_heads * (op.qk_head_dim + op.v_head_dim)


def _accumulators(op: KernelOp) -> float:
    if not isinstance(op, Attention):
        return 0.0
    return op.batch * op.seq_q * op.heads * op.qk_head_dim * ACCUMULATOR_BYTES


def _narrow_bytes(node: Node, size: float) -> float:
    """Quantised copies of a 16-bit operand, while its products run."""
    if node.quantization is None:
        return 0.0
    recipe = node.quantization.recipe
    return size / ACTIVATION_BYTES * recipe.element_bytes * recipe.copies


def _exchanged(node: Node, when: str) -> float:
    """Rows on their way: what is sent and what arrives exist together."""
    if not isinstance(node, RoutedNode):
        return 0.0
    collectives: tuple[Collective, ...] = getattr(node, when)
    return max((op.size_bytes for op in collectives if op.kind != "reduce_scatter"), default=0.0)


def _shared_bytes(node: Node) -> float:
    """Keys and values of other ranks of the CP group."""
    return node.buffer_bytes if isinstance(node, SharedAttention) else 0.0


def _weight_gradient_bytes(node: Node) -> float:
    """A gradient tensor beside the main gradient, in the weight's own format.

    The look-up's is dense (PyTorch's ``embedding_dense_backward``); a product's exists where it does not add
    to the main gradient itself. Megatron-LM's LM head adds by itself, and still allocates one to hand to
    autograd (``LinearWithGradAccumulationAndAsyncCommunication``).
    """
    if node.region is Region.EMBEDDING or (node.module == "head" and node.parameters):
        return node.parameters * WEIGHT_BYTES
    for op in node.weight_gradient:
        if isinstance(op, Gemm | GroupedGemm) and not op.accumulate:
            count = op.groups * op.n * op.k if isinstance(op, GroupedGemm) else op.batch * op.m * op.n
            return count * op.output_bytes_per_element
    return 0.0


def placeholder_shapes(nodes: Sequence[Node]) -> dict[tuple[int, int], float]:
    """Bytes by weight shape of what stands for gradients that products have added to the main gradient.

    Autograd wants a tensor for every weight. Transformer Engine keeps one per distinct shape and format for
    the whole run (``get_dummy_wgrad`` of its ``module/base.py``), in the weight's format.
    """
    shapes: dict[tuple[int, int], float] = {}
    for node in nodes:
        op = node.forward
        if node.module == "head" or not isinstance(op, Gemm | GroupedGemm):
            continue
        if any(isinstance(g, Gemm | GroupedGemm) and g.accumulate for g in node.weight_gradient):
            shapes[op.n, op.k] = op.n * op.k * WEIGHT_BYTES
    return shapes
