"""A Mamba-2 mixer, whole: projection, causal convolution, chunked scan, gated norm, output projection.

The scan is the state-space duality algorithm (Dao and Gu 2024, arXiv 2405.21060, section 6) as mamba-ssm's
``mamba_split_conv1d_scan_combined`` runs it, which Megatron-LM calls: products within chunks of Q tokens, one
pass over the chunks' states, and a backward that repeats the convolution and the states. `H` heads of size
`P`, `G` groups that share B and C, states of size `N`. The scan stays in 16 bits beside narrow projections.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import Node, Region, Tensor, elementwise, linear
from simulator.graph.operators import Gemm, ImplicitGemm, MemoryBound
from simulator.graph.options import GraphOptions
from simulator.graph.parameters import MAMBA_CONV_KERNEL
from simulator.graph.transformer import ACTIVATION_BYTES, activation, norm, residual
from simulator.spec.model import ModelSpec

STATE_BYTES = 4.0  # states between chunks and all that concerns the decay are fp32
MODULE = "mamba"


def mamba_block(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Norm, input projection (z, x, B, C, dt), convolution, scan, gated norm, output projection, residual."""
    inner = model.mamba_num_heads * model.mamba_head_dim
    return (
        norm(model, opts, "input_norm"),
        _projection(model, opts),
        _convolution(model, opts),
        _decay(model, opts),
        _chunk_states(model, opts),
        _state_passing(model, opts),
        _scores(model, opts),
        _chunk_scan(model, opts),
        _gated_norm(inner, opts),
        _output(model, opts, inner),
        residual(model, opts, "mamba_residual"),
    )


def _groups_width(model: ModelSpec) -> int:
    """Features of B, or of C."""
    return model.mamba_n_groups * model.ssm_state_size


def _projection(model: ModelSpec, opts: GraphOptions) -> Node:
    inner = model.mamba_num_heads * model.mamba_head_dim
    return linear(
        "mamba_in",
        module=MODULE,
        region=Region.COLUMN,
        tokens=opts.tokens,
        inputs=model.hidden_size,
        outputs=2 * inner + 2 * _groups_width(model) + model.mamba_num_heads,
        dtype=opts.dtype,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("mamba_in.input", opts.tokens * model.hidden_size, Region.SEQUENCE, "layernorm"),),
    )


def _convolution(model: ModelSpec, opts: GraphOptions) -> Node:
    """Depth-wise over x, B and C, with SiLU; backward repeats it. The projection's whole output is kept."""
    inner, heads = model.mamba_num_heads * model.mamba_head_dim, model.mamba_num_heads
    channels = inner + 2 * _groups_width(model)
    size = opts.tokens * channels * ACTIVATION_BYTES
    kept = opts.tokens * (inner + channels + heads)
    node = elementwise(
        "conv1d",
        "activation",
        module=MODULE,
        region=Region.FEATURE,
        forward=(size, size),
        backward=(3 * size, 2 * size),
        kernels=(1, 2),
        saves=(
            Tensor(name="mamba.zxbcdt", bytes=kept * ACTIVATION_BYTES, region=Region.FEATURE, origin=MODULE),
        ),
    )
    weights = float(channels * (MAMBA_CONV_KERNEL + 1))
    return replace(node, parameters=weights, enters=kept * ACTIVATION_BYTES)


def _decay(model: ModelSpec, opts: GraphOptions) -> Node:
    """Softplus of dt and its cumulative sums over chunks; backward repeats them. Holds A, D and dt's bias."""
    steps = opts.tokens * model.mamba_num_heads
    read, written = steps * ACTIVATION_BYTES, 2 * steps * STATE_BYTES
    node = elementwise(
        "ssd.decay",
        "activation",
        module=MODULE,
        region=Region.FEATURE,
        forward=(read, written),
        backward=(2 * read + 2 * written, written + read),
        kernels=(1, 3),
    )
    return replace(node, parameters=3.0 * model.mamba_num_heads)


def _chunks(model: ModelSpec, opts: GraphOptions, units: int) -> int:
    """Chunks times heads or groups: on CP ranks all chunks of some, as many as some chunks of all."""
    return opts.tokens * units // model.chunk_size


def _per_head(name: str, model: ModelSpec, opts: GraphOptions, *, m: int, n: int, k: int) -> ImplicitGemm:
    """A product for every chunk and head whose first operand (of B or C) the heads of a group share."""
    return ImplicitGemm(
        name=name,
        batch=_chunks(model, opts, model.mamba_num_heads),
        reuse=model.mamba_num_heads / model.mamba_n_groups,
        dtype=_wide(opts),
        m=m,
        n=n,
        k=k,
    )


def _wide(opts: GraphOptions) -> str:
    return "bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype


def _chunk_states(model: ModelSpec, opts: GraphOptions) -> Node:
    """Each chunk's state Bᵀ·x: [N, Q] × [Q, P]. Backward repeats it; dB = x·dstatesᵀ: [Q, P] × [P, N]."""
    q, n, p = model.chunk_size, model.ssm_state_size, model.mamba_head_dim
    forward = replace(
        _per_head("ssd.state", model, opts, m=n, n=p, k=q), output_bytes_per_element=STATE_BYTES
    )
    keys = _own("ssd.dB", model, opts, m=q, n=n, k=p)
    return Node(forward=forward, module=MODULE, region=Region.FEATURE, input_gradient=(keys, forward))


def _state_passing(model: ModelSpec, opts: GraphOptions) -> Node:
    """One pass over the chunks' states; backward repeats it and goes back over their gradients."""
    size = (
        _chunks(model, opts, model.mamba_num_heads)
        * model.mamba_head_dim
        * model.ssm_state_size
        * STATE_BYTES
    )
    return elementwise(
        "ssd.passing",
        "residual",
        module=MODULE,
        region=Region.FEATURE,
        forward=(size, size),
        backward=(3 * size, 2 * size),
        kernels=(1, 2),
    )


def _scores(model: ModelSpec, opts: GraphOptions) -> Node:
    """C·Bᵀ within chunks, per group: [Q, N] × [N, Q]. Backward repeats it; dC and dB are two products."""
    q, n = model.chunk_size, model.ssm_state_size
    batch = _chunks(model, opts, model.mamba_n_groups)
    forward = Gemm(
        name="ssd.cb", m=q, n=q, k=n, batch=batch, dtype=_wide(opts), output_bytes_per_element=STATE_BYTES
    )
    gradient = replace(forward, name="ssd.dcb", n=n, k=q, output_bytes_per_element=ACTIVATION_BYTES)
    return Node(
        forward=forward, module=MODULE, region=Region.FEATURE, input_gradient=(gradient, gradient, forward)
    )


def _own(name: str, model: ModelSpec, opts: GraphOptions, *, m: int, n: int, k: int) -> Gemm:
    """A product for every chunk and head of the head's own operands; a group's gradients are summed."""
    batch = _chunks(model, opts, model.mamba_num_heads)
    return Gemm(name=name, batch=batch, dtype=_wide(opts), m=m, n=n, k=k)


def _chunk_scan(model: ModelSpec, opts: GraphOptions) -> Node:
    """Within chunks and from their states, gated by z: [Q, Q + N] × [Q + N, P].

    Backward: gradients of the states, of x (within and through the states), of C, of the scores, and of the
    decay, which needs the scores' gradient again.
    """
    q, n, p = model.chunk_size, model.ssm_state_size, model.mamba_head_dim
    tokens, inner = opts.tokens, model.mamba_num_heads * p
    states = replace(
        _per_head("ssd.dstates", model, opts, m=n, n=p, k=q), output_bytes_per_element=STATE_BYTES
    )
    values = _per_head("ssd.dx", model, opts, m=q, n=p, k=q + n)
    queries = _own("ssd.dC", model, opts, m=q, n=n, k=p)
    scores = _own("ssd.dscores", model, opts, m=q, n=q, k=p)
    gate = tokens * inner * ACTIVATION_BYTES
    gated = MemoryBound(name="ssd.dz", kind="activation", read_bytes=3 * gate, write_bytes=2 * gate)
    return Node(
        forward=_per_head("ssd.scan", model, opts, m=q, n=p, k=q + n),
        module=MODULE,
        region=Region.FEATURE,
        input_gradient=(gated, states, values, queries, scores, scores),
        saves=(activation("mamba.y", tokens * inner, Region.FEATURE, MODULE),),
        leaves=gate,
    )


def _gated_norm(inner: int, opts: GraphOptions) -> Node:
    """RMS norm of the gated output in groups of features."""
    size = opts.tokens * inner * ACTIVATION_BYTES
    node = elementwise(
        "mamba_norm",
        "norm",
        module=MODULE,
        region=Region.FEATURE,
        forward=(size, size),
        backward=(2 * size, size),
        kernels=(1, 2),
        saves=(activation("mamba.y", opts.tokens * inner, Region.FEATURE, MODULE),),
    )
    return replace(node, parameters=float(inner))


def _output(model: ModelSpec, opts: GraphOptions, inner: int) -> Node:
    return linear(
        "mamba_out",
        module=MODULE,
        region=Region.ROW,
        tokens=opts.tokens,
        inputs=inner,
        outputs=model.hidden_size,
        dtype=opts.dtype,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(activation("mamba_out.input", opts.tokens * inner, Region.FEATURE, MODULE),),
    )
