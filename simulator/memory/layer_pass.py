"""What comes and goes while a layer runs: its operators in order, with the births and deaths of their inputs,
outputs, gradients and temporaries.

Both passes are walked over the rank's own nodes. Autograd's rules decide how long a tensor lives: an
operator's input dies after it unless it is kept for backward; a kept tensor dies once the last gradient that
needs it is done; the gradient of the residual stream lives through a whole block, since the branch's is added
to it at the block's start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from simulator.graph.layer import Node, Region, Tensor
from simulator.graph.operators import Attention, Collective, Gemm, GroupedGemm, ImplicitGemm, KernelOp
from simulator.graph.transformer import ACTIVATION_BYTES
from simulator.partition.context import SharedAttention
from simulator.partition.expert import RoutedNode
from simulator.partition.tensor import TensorParallel

ACCUMULATOR_BYTES = 4.0  # FlashAttention-2 sums dQ over blocks of keys in fp32 (`dq_accum` of its backward)
WEIGHT_BYTES = 2.0


Events = tuple[tuple[str, float], ...]
"""Tensors by name in the order in which they come (with their bytes) and go (0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPasses:
    """What one layer's passes allocate beside what was there before, with their peaks in bytes.

    ``kept`` are the tensors that stay from the forward to the backward pass. ``forward_peak`` is the most
    alive during the forward pass over all that the layer keeps by its end; ``backward_peak`` the most during
    the backward pass over all that it kept, the gradient that comes in counted. ``deferred``: what weight
    gradients need, once the input gradients are done.
    """

    kept: Events
    forward: Events
    backward: Events
    forward_peak: float
    backward_peak: float
    deferred: float


@dataclass(slots=True)
class _Ledger:
    """Tensors alive, their bytes, the most bytes so far, and all that happened."""

    sizes: dict[str, float] = field(default_factory=dict)
    alive: float = 0.0
    peak: float = 0.0
    events: list[tuple[str, float]] = field(default_factory=list)

    def add(self, tensors: Mapping[str, float]) -> None:
        for name, size in tensors.items():
            if size > 0.0:
                self.sizes[name] = size
                self.alive += size
                self.events.append((name, size))
        self.peak = max(self.peak, self.alive)

    def drop(self, names: Iterable[str]) -> None:
        for name in names:
            size = self.sizes.pop(name, 0.0)
            if size:
                self.alive -= size
                self.events.append((name, 0.0))


def layer_passes(nodes: Sequence[Node], tp: TensorParallel, *, gradient_tensors: bool) -> LayerPasses:
    """What one layer's passes allocate.

    Args:
        nodes: a rank's share of a layer, in forward order.
        tp: the rank's tensor parallelism.
        gradient_tensors: weight gradients that no product adds to the main gradient by itself are tensors of
            their own for a moment (not so where they are counted with their bucket).
    """
    flow = _Flow(tuple(nodes), tp)
    kept = {t.name: t.bytes for node in nodes for t in node.saves}
    forward, backward = flow.forward(), flow.backward(kept, gradient_tensors=gradient_tensors)
    total = sum(kept.values())
    return LayerPasses(
        kept=tuple(kept.items()),
        forward=tuple(forward.events),
        backward=tuple(backward.events),
        forward_peak=forward.peak - total,
        backward_peak=backward.peak - total,
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

    def forward(self) -> _Ledger:
        ledger = _Ledger()
        arriving, size = "", 0.0  # the activation that no node keeps
        for index, (node, size_in, size_out) in enumerate(
            zip(self.nodes, self.inputs, self.outputs, strict=True)
        ):
            new = {t.name: t.bytes for t in node.saves if t.name not in ledger.sizes}
            own = {t.name: t.bytes for t in node.saves if t.name in new and _is_made_by(node, t)}
            claimed = {name: size for name, size in new.items() if name not in own}
            if sum(claimed.values()) >= size:  # what arrives is kept
                ledger.drop((arriving,))
            ledger.add(claimed)
            passing = self._forward_temporaries(node, size_in)
            leaving = f"{index}.output"
            ledger.add(passing)
            ledger.add({**own, leaving: max(0.0, size_out - sum(own.values()))})
            ledger.drop((*passing, arriving))
            arriving, size = leaving, ledger.sizes.get(leaving, 0.0)
        ledger.drop((arriving,))
        return ledger

    def _forward_temporaries(self, node: Node, size_in: float) -> dict[str, float]:
        around = self._gathers(node, Region.COLUMN, Region.ROW, Region.EMBEDDING)
        return {
            **_numbered(node.transients[0]),
            "gathered": node.boundary_bytes if around else 0.0,
            "narrow": _narrow_bytes(node, size_in),
            "exchanged": _exchanged(node, "sent"),
            "shared": _shared_bytes(node),
        }

    def backward(self, kept: Mapping[str, float], *, gradient_tensors: bool) -> _Ledger:
        ledger = _Ledger()
        ledger.add(kept)
        last_use = {
            t.name: index for index, node in reversed(list(enumerate(self.nodes))) for t in node.saves
        }
        gradient, stream = "incoming", ""
        ledger.add({gradient: self.outputs[-1] if self.nodes else 0.0})
        for index in reversed(range(len(self.nodes))):
            node = self.nodes[index]
            done = tuple(t.name for t in node.saves if last_use[t.name] == index)
            if _joins(node):  # the branch's gradient is the stream's own unless dropout masks it
                stream = gradient or stream
                gradient = "masked" if node.saves else ""
                ledger.add({gradient: ledger.sizes.get(stream, 0.0)} if gradient else {})
            else:
                transients = _numbered(node.transients[1])
                ledger.add(transients)
                if transients:  # several kernels: what they keep goes before the last one's result comes
                    ledger.drop((*list(transients)[:-1], *done))
                passing = self._backward_temporaries(node, gradient_tensors=gradient_tensors)
                result = f"{index}.gradient"
                ledger.add({result: self.inputs[index], **passing})
                ledger.drop((*transients, *passing, gradient))
                gradient = result
            ledger.drop(done)
            if stream and (index == 0 or _joins(self.nodes[index - 1])):  # added to the stream's
                ledger.drop((gradient,))
                gradient = ""
        ledger.drop(tuple(ledger.sizes))
        return ledger

    def _backward_temporaries(self, node: Node, *, gradient_tensors: bool) -> dict[str, float]:
        around = self._gathers(node, Region.ROW, Region.EMBEDDING, Region.COLUMN)
        whole = self._gathers(node, Region.COLUMN)
        return {
            "gathered": node.boundary_bytes if around else 0.0,  # the gradient, or the input once more
            "whole": node.boundary_bytes * (1.0 - 1.0 / self.tp.size)
            if whole
            else 0.0,  # before its reduction
            "narrow": _narrow_bytes(node, _output_bytes(node, 0.0)),
            "exchanged": _exchanged(node, "returned"),
            "shared": _shared_bytes(node),
            "accumulator": sum(_accumulators(op) for op in node.input_gradient),
            "weight gradient": _weight_gradient_bytes(node) if gradient_tensors else 0.0,
        }

    def deferred(self) -> float:
        """Inputs of products with weights and gradients of their outputs, as the products take them.

        Narrow ones keep the copy that lies along tokens (Transformer Engine's ``WeightGradStore``).
        """
        kept: dict[str, float] = {}
        for node, size_out in zip(self.nodes, self.outputs, strict=True):
            if node.weight_gradient and isinstance(node.forward, Gemm | GroupedGemm):
                kept.update((t.name, t.bytes) for t in node.saves)
                narrow = node.quantization
                share = 1.0 if narrow is None else narrow.recipe.element_bytes / ACTIVATION_BYTES
                kept[f"{node.forward.name}.grad"] = size_out * share
        return sum(kept.values())


def _numbered(sizes: Sequence[float]) -> dict[str, float]:
    return {f"transient {index}": size for index, size in enumerate(sizes)}


def _joins(node: Node) -> bool:
    """Whether a branch is added to the residual stream here."""
    return node.module == "residual"


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
    if isinstance(op, ImplicitGemm):
        return op.batch * op.m * op.k / op.reuse * op.output_bytes_per_element
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
    if not node.trained:
        return 0.0
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
