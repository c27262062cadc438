"""Memory-bound operations as a training stack runs them: which kernels, what they read, write and keep.

Numbers are bytes per element of the tensor worked on, which is bf16: fp32 intermediates take 4. A stack
differs from another in how many passes over memory one operation takes:

- ``megatron``: hand-written kernels of Transformer Engine, Apex and Megatron-LM.
- ``compiled``: torch.compile (Inductor) over every layer and the loss.
- ``eager``: one kernel per PyTorch operator.

Biases of products are added by the GEMM or the fused kernel after it in every stack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from simulator.graph.layer import Node, Region, Tensor, Transients, elementwise
from simulator.graph.operators import KernelOp


class Kernel(NamedTuple):
    """Bytes per element that a kernel reads and writes, ``launches`` of them on a part each."""

    read: float
    write: float
    launches: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """One operation. ``kind`` is its cost class; ``kept`` bytes per element wait for the backward.

    ``transients``: bytes per element of tensors, forward and backward, that exist only while it runs, beside
    what comes in and is kept; what goes out is made from the last of them.
    """

    kind: str
    forward: tuple[Kernel, ...]
    backward: tuple[Kernel, ...]
    kept: float = 0.0
    transients: Transients = ((), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """The operations of one stack.

    Elements are those of the residual stream for norms and residuals (``dropout`` includes the addition), of
    queries and keys for ``rope`` (``scaled_rope`` where they are scaled too), of the MLP's inner width for
    activations and the ``clamp`` before one (both halves of a gated one count as one), of the score matrix
    for ``softmax``, of the logits for ``loss``. ``qkv_join`` (elements of Q, K and V) and ``gate_join``
    (residual stream) gather gradients in the backward: of a split projection, and of the input of two
    projections that other stacks join. ``repeat_kv``: keys and values are copied to every query head of their
    group. ``views``: queries, keys and values are views of one product's output, see
    :mod:`simulator.graph.joint_projection`. ``fused_loss`` is the loss where its fusion is asked for.
    """

    layernorm: Passes
    rmsnorm: Passes
    residual: Passes
    dropout: Passes
    rope: Passes
    scaled_rope: Passes
    activation: Passes
    gated: Passes
    clamp: Passes
    softmax: Passes
    loss: Passes
    fused_loss: Passes
    qkv_join: Passes | None = None
    gate_join: Passes | None = None
    repeat_kv: bool = False
    views: bool = False


# Norms read x and write y; the backward reads dy and x, writes dx, then the weights' gradient.
_FUSED_NORM = Passes(kind="norm", forward=(Kernel(2, 2),), backward=(Kernel(4, 2, 2),), kept=2)
# PyTorch and Inductor sum the weights' gradient over tokens in a pass of its own over dy and x.
_TORCH_NORM = replace(_FUSED_NORM, backward=(Kernel(4, 2), Kernel(4, 0)))
# The branch is added to the stream. Backward: the gradients that meet at the fork are added.
_RESIDUAL = Passes(kind="residual", forward=(Kernel(4, 2),), backward=(Kernel(4, 2),))
# Masks take one byte (Korthikanti 2022, section 4). Backward: masks the branch's gradient too.
_FUSED_DROPOUT = Passes(
    kind="residual", forward=(Kernel(4, 3),), backward=(Kernel(4, 2), Kernel(3, 2)), kept=1
)
_PLAIN_ACTIVATION = Passes(kind="activation", forward=(Kernel(2, 2),), backward=(Kernel(4, 2),), kept=2)
_FUSED_GATED = Passes(kind="activation", forward=(Kernel(4, 2),), backward=(Kernel(6, 4),), kept=4)
# Flash-attn's and Apex's: bf16 logits are read for the maximum and the sum, and once more for the gradient.
_FUSED_LOSS = Passes(kind="cross_entropy", forward=(Kernel(4, 0),), backward=(Kernel(2, 2),), kept=2)

# Transformer Engine's (`triton/cross_entropy.py`, remembered and not read): one pass finds maximum and sum,
# one writes the gradient over the logits; the backward scales it by the loss's gradient.
TE_LOSS = replace(_FUSED_LOSS, forward=(Kernel(2, 0), Kernel(2, 2)), backward=(Kernel(2, 2),))

# Megatron-LM's `_apply_rotary_pos_emb_bshd`, Q and K apart: its fused kernel knows no factor beside the
# angles. Times cosines; half negated, halves joined, times sines; the sum; joined with what is not rotated.
_HALF, _WHOLE, _SUM = Kernel(1, 1, 2), Kernel(2, 2, 2), Kernel(4, 2, 2)
_SCALED_ROPE = Passes(
    kind="rope",
    forward=(_WHOLE, _HALF, _WHOLE, _WHOLE, _SUM, _WHOLE),
    backward=(_WHOLE, _WHOLE, _WHOLE, _HALF, _WHOLE, _SUM),
)
# Megatron-LM's `weighted_bias_quick_geglu_impl` with a clamp value: each half by itself, then both joined.
# Backward (PyTorch's `clamp_backward`, remembered and not read): where a half lay inside its bounds, one of
# one and two of the other, its gradient, else a zero that is made first.
_WITHIN, _CHOSEN, _ZERO = Kernel(2, 1), Kernel(3, 2), Kernel(0, 0)
_CLAMP = Passes(
    kind="activation",
    forward=(Kernel(2, 2), Kernel(2, 2), Kernel(4, 4)),
    backward=(
        *(_WITHIN, _ZERO, _CHOSEN),
        *(_WITHIN, _WITHIN, Kernel(2, 1), _ZERO, _CHOSEN),
        Kernel(4, 4),
    ),
    kept=4,
)

_MEGATRON = Fusion(
    layernorm=_FUSED_NORM,
    rmsnorm=_FUSED_NORM,
    residual=_RESIDUAL,
    dropout=_FUSED_DROPOUT,
    rope=Passes(kind="rope", forward=(Kernel(2, 2, 2),), backward=(Kernel(2, 2, 2),)),  # Q and K apart
    scaled_rope=_SCALED_ROPE,
    activation=_PLAIN_ACTIVATION,
    gated=_FUSED_GATED,
    clamp=_CLAMP,
    softmax=Passes(kind="softmax", forward=(Kernel(2, 2),), backward=(Kernel(4, 2),), kept=2),
    loss=Passes(  # vocabulary-parallel (Shoeybi 2019, section 3), without fused cross entropy
        kind="cross_entropy",
        forward=(
            Kernel(2, 4),  # to fp32
            Kernel(4, 0),  # maximum
            Kernel(4, 4),  # subtract it, in place
            Kernel(0, 0),  # the target's logit
            Kernel(4, 4),  # exponentiate
            Kernel(4, 0),  # sum
            Kernel(4, 4),  # divide
        ),
        backward=(Kernel(0, 0), Kernel(4, 4), Kernel(4, 2)),  # the target's entry; scale; to bf16
        kept=4,
    ),
    fused_loss=Passes(  # Megatron-LM's native one: the same, compiled between the three reductions over ranks
        kind="cross_entropy",
        forward=(Kernel(2, 4), Kernel(4, 4), Kernel(4, 4)),
        backward=(Kernel(0, 0), Kernel(4, 2)),
        kept=4,
    ),
    views=True,
)

_COMPILED = replace(
    _MEGATRON,
    views=False,
    layernorm=_TORCH_NORM,
    rmsnorm=_TORCH_NORM,
    scaled_rope=_MEGATRON.rope,
    clamp=Passes(kind="activation", forward=(), backward=()),  # part of the activation
    gate_join=Passes(kind="residual", forward=(), backward=(Kernel(2, 0, 0),)),  # one more input of a kernel
    loss=Passes(  # casts are part of the reductions: maximum, sum; backward one pass
        kind="cross_entropy", forward=(Kernel(2, 0), Kernel(2, 0)), backward=(Kernel(2, 2),), kept=2
    ),
    fused_loss=_FUSED_LOSS,
    repeat_kv=True,
)

_EAGER = Fusion(
    layernorm=_TORCH_NORM,  # ATen's own kernel, in bf16
    rmsnorm=Passes(  # composed of fp32 operators; runs at the rate of plain element-wise kernels
        kind="default",
        forward=(
            Kernel(2, 4),  # to fp32
            Kernel(4, 4),  # square
            Kernel(4, 0),  # mean
            Kernel(0, 0, 2),  # add epsilon; reciprocal root
            Kernel(4, 4),  # scale the row
            Kernel(4, 4),  # times the weight
            Kernel(4, 2),  # to bf16
        ),
        backward=(
            Kernel(2, 4),  # to fp32
            Kernel(4, 4),  # times the weight
            Kernel(8, 4),  # times the normalised row, for the weight's gradient
            Kernel(4, 0),  # its sum over tokens
            Kernel(4, 4),  # times the row's scale
            Kernel(8, 4),  # times x, for the scale's gradient
            Kernel(4, 0),  # its sum over features
            Kernel(0, 0, 2),  # through root and mean
            Kernel(4, 4),  # twice x
            Kernel(4, 4),  # times the mean's gradient
            Kernel(8, 4),  # both gradients of x
            Kernel(4, 2),  # to bf16
        ),
        kept=8,  # x and the normalised row in fp32
        transients=((4,), (4, 4, 4)),  # fp32: the squares; two terms of the gradient and their sum
    ),
    residual=_RESIDUAL,
    dropout=replace(_FUSED_DROPOUT, forward=(Kernel(2, 3), Kernel(4, 2))),
    rope=Passes(  # Q and K apart: to fp32, times a complex number, to bf16
        kind="rope",
        forward=(Kernel(2, 4, 2), Kernel(4, 4, 2), Kernel(4, 2, 2)),
        backward=(Kernel(2, 4, 2), Kernel(4, 4, 2), Kernel(4, 2, 2)),
    ),
    scaled_rope=_SCALED_ROPE,
    activation=_PLAIN_ACTIVATION,
    clamp=_CLAMP,
    gated=Passes(  # the activation, then its product with the other half
        kind="activation",
        forward=(Kernel(2, 2), Kernel(4, 2)),
        backward=(Kernel(4, 2), Kernel(4, 2), Kernel(4, 2)),
        kept=6,  # the activation's result too
    ),
    softmax=Passes(  # scale, mask, softmax in fp32, to bf16
        kind="softmax",
        forward=(Kernel(2, 2), Kernel(2, 2), Kernel(2, 4), Kernel(4, 2)),
        backward=(Kernel(2, 4), Kernel(8, 2), Kernel(2, 2), Kernel(2, 2)),
        kept=6,
    ),
    loss=Passes(  # to fp32; log-softmax, in three passes over rows no cache holds; the targets
        kind="cross_entropy",
        forward=(Kernel(2, 4), Kernel(12, 4), Kernel(0, 0)),
        # a gradient of zeros but for the targets; its sum, then both operands; to bf16
        backward=(Kernel(0, 4, 2), Kernel(12, 4), Kernel(4, 2)),
        kept=4,
        transients=((4,), (4, 4)),  # fp32: the copy; the gradients of the sum and of log-softmax
    ),
    fused_loss=_FUSED_LOSS,
    qkv_join=Passes(kind="default", forward=(), backward=(Kernel(2, 2),)),
    gate_join=replace(_RESIDUAL, forward=()),
    repeat_kv=True,
)
STACKS = {"megatron": _MEGATRON, "compiled": _COMPILED, "eager": _EAGER}


def fused(
    name: str,
    passes: Passes,
    elements: float,
    *,
    module: str,
    region: Region,
    operands: int = 1,
    replicated_parameters: float = 0.0,
    weight_gradient: tuple[KernelOp, ...] = (),
    reductions: tuple[float, ...] = (),
    saves: tuple[Tensor, ...] = (),
) -> Node:
    """A node that runs an operation over so many elements, by kernels of each of ``operands`` tensors."""
    forward, backward = _total(passes.forward), _total(passes.backward)
    return elementwise(
        name,
        passes.kind,
        module=module,
        region=region,
        forward=(forward.read * elements, forward.write * elements),
        backward=(backward.read * elements, backward.write * elements),
        kernels=(forward.launches * operands, backward.launches * operands),
        replicated_parameters=replicated_parameters,
        weight_gradient=weight_gradient,
        reductions=reductions,
        saves=saves,
        transients=(
            tuple(size * elements for size in passes.transients[0]),
            tuple(size * elements for size in passes.transients[1]),
        ),
    )


def _total(kernels: tuple[Kernel, ...]) -> Kernel:
    return Kernel(
        sum(kernel.read for kernel in kernels),
        sum(kernel.write for kernel in kernels),
        sum(kernel.launches for kernel in kernels),
    )
