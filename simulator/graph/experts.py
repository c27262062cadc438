"""A mixture-of-experts block, whole: router, dispatch, routed and shared experts, combine.

Follows Megatron-LM's `MoELayer`: each of `T` tokens is copied to `k` of `E` experts, so the experts work on
`k·T` rows. The probabilities are applied in the experts' activation. Which rank holds which expert, and how
rows travel, is decided by :mod:`simulator.partition.expert`; rows here are those of a balanced router.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.blocks import expert_width, shared_expert_width
from simulator.graph.fusion import fused
from simulator.graph.layer import Node, Region, Tensor, bias_gradient, elementwise, linear
from simulator.graph.operators import GroupedGemm, KernelOp, MemoryBound
from simulator.graph.options import GraphOptions
from simulator.graph.routing import (
    LOGIT_BYTES,
    exchange_plan,
    expert_input,
    kept,
    local_sort,
    permute,
    router,
    row_count,
    row_width,
    unpermute,
)
from simulator.graph.transformer import ACTIVATION_BYTES, activation, norm, residual
from simulator.spec.model import ModelSpec


def experts_block(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """Norm, shared experts, router, dispatch, routed experts, combine, residual.

    Overlapped shared experts run beside the communication instead: the first product beside the dispatch, the
    second beside the combine (Megatron-LM's ``--moe-shared-expert-overlap``).
    """
    shared = _shared_experts(model, opts)
    head, tail = (shared[:2], shared[2:]) if opts.shared_expert_overlap else ((), ())
    latent = model.moe_latent_size > 0
    return (
        norm(model, opts, "moe_norm"),
        _fork(model, opts),
        *(() if opts.shared_expert_overlap else shared),
        *router(model, opts),
        exchange_plan(model, opts),
        *((_latent(model, opts, "latent_down"),) if latent else ()),
        permute(model, opts),
        *(replace(node, beside=True) for node in head),
        local_sort(model, opts, "expert_sort", Region.ARRIVAL),
        *_routed_experts(model, opts),
        *((_output_bias(model, opts),) if model.linear_bias else ()),
        local_sort(model, opts, "expert_unsort", Region.DEPARTURE),
        *(replace(node, beside=True) for node in tail),
        unpermute(model, opts),
        *((_latent(model, opts, "latent_up"),) if latent else ()),
        *((_add_shared(model, opts),) if shared else ()),
        residual(model, opts, "moe_residual", biased=False),
    )


def _fork(model: ModelSpec, opts: GraphOptions) -> Node:
    """No work forward. Backward adds the gradients of router, routed and shared experts, two at a time."""
    size = opts.tokens * model.hidden_size * ACTIVATION_BYTES
    sums = 2 if shared_expert_width(model) else 1
    return elementwise(
        "moe_fork",
        "residual",
        module="moe",
        region=Region.SEQUENCE,
        forward=(0.0, 0.0),
        backward=(2 * sums * size, sums * size),
        kernels=(0, sums),
    )


def _latent(model: ModelSpec, opts: GraphOptions, name: str) -> Node:
    """A projection to or from the experts' latent space, done by every rank on its own tokens."""
    down = name == "latent_down"
    inputs, outputs = (
        (model.hidden_size, model.moe_latent_size) if down else (model.moe_latent_size, model.hidden_size)
    )
    saved = (
        expert_input(model, opts)
        if down
        else activation("latent_up.input", opts.tokens * inputs, Region.SEQUENCE, "moe.combine")
    )
    node = linear(
        name,
        module="moe.latent",
        region=Region.SEQUENCE,
        tokens=opts.tokens,
        inputs=inputs,
        outputs=outputs,
        dtype=opts.dtype,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=opts.fused_accumulation,
        saves=(saved,),
    )
    return replace(node, boundary_bytes=0.0, parameters=0.0, replicated_parameters=node.parameters)


def _routed_experts(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """FC1 (gate and up in one product), activation with the probabilities, FC2.

    The activation's backward is compiled (`weighted_swiglu_back` of Megatron-LM). Where it has a gate, the
    gradients of both halves are joined in one kernel, and those of the probabilities, sums over half as
    many elements, take another, which reads all again (`cat` and `SIMDScheduling.can_fuse` of PyTorch 2.6's
    Inductor).
    """
    rows, width, inner = row_count(model, opts), row_width(model), expert_width(model)
    gates = 2 if model.gated_mlp else 1
    size = rows * inner * ACTIVATION_BYTES
    probabilities = rows * LOGIT_BYTES
    return (
        grouped_linear(
            "experts.fc1",
            region=Region.EXPERT_COLUMN,
            model=model,
            opts=opts,
            rows=rows,
            inputs=width,
            outputs=gates * inner,
            saves=(activation("experts.fc1.input", rows * width, Region.ARRIVAL, "moe.dispatch"),),
        ),
        *((_clamp(opts, rows * inner),) if model.swiglu_limit else ()),
        elementwise(
            "experts.activation",
            "activation",
            module="moe.experts.moe_act",
            region=Region.EXPERT_FEATURE,
            forward=(gates * size + probabilities, size),
            backward=(gates * ((1 + gates) * size + probabilities), gates * size + probabilities),
            kernels=(1, gates),
            saves=(
                kept("experts.fc1.output", gates * size, Region.EXPERT_FEATURE, "moe.experts"),
                kept("experts.probabilities", probabilities, Region.ARRIVAL, "moe.dispatch"),
            ),
        ),
        grouped_linear(
            "experts.fc2",
            region=Region.EXPERT_ROW,
            model=model,
            opts=opts,
            rows=rows,
            inputs=inner,
            outputs=width,
            saves=(
                activation("experts.fc2.input", rows * inner, Region.EXPERT_FEATURE, "moe.experts.moe_act"),
            ),
        ),
    )


def _clamp(opts: GraphOptions, elements: float) -> Node:
    """Bounds FC1's output; what the activation keeps for its backward is the bounded copy.

    The host waits for FC1: beside the bounds Megatron-LM hands the activation an offset, which it copies to
    the device from pageable memory (`torch.tensor(linear_offset, device=...)`).
    """
    passes = opts.fusion.clamp
    size = elements * passes.kept
    node = fused(
        "experts.clamp",
        passes,
        elements,
        module="moe.experts.moe_act",
        region=Region.EXPERT_FEATURE,
        saves=(kept("experts.clamp.output", size, Region.EXPERT_FEATURE, "moe.experts.moe_act"),)
        if size
        else (),
    )
    return replace(node, host_waits=bool(passes.forward))


def _output_bias(model: ModelSpec, opts: GraphOptions) -> Node:
    """Adds bias times probability to the rows, expert by expert (`TEGroupedMLP._apply_bias` of Megatron-LM).

    The probabilities are fp32, and so is every step: product (writes 4 bytes an element), sum (reads 2 and 4,
    writes 4), concatenation (4, 4), cast (4, 2). Backward: cast (2, 4), gradients of rows (4, 2), joined
    (2, 2) as those of probabilities are, of bias (4, 4; 4) and probability (4, 4; 4). The bias's is cast and
    added to the main gradient.
    """
    elements = float(row_count(model, opts) * row_width(model))
    return elementwise(
        "experts.output_bias",
        "residual",
        module="moe.experts",
        region=Region.EXPERT_ROW,
        forward=(14 * elements, 14 * elements),
        backward=(24 * elements, 16 * elements),
        kernels=(2 * model.num_experts + 2, 7 * model.num_experts + 3),
    )


def grouped_linear(
    name: str,
    *,
    region: Region,
    model: ModelSpec,
    opts: GraphOptions,
    rows: int,
    inputs: int,
    outputs: int,
    saves: tuple[Tensor, ...],
) -> Node:
    """One linear layer per expert; weight gradients accumulate as those of a dense one.

    FC2 leaves its bias to who comes after it: see :func:`_output_bias`.
    """
    forward = GroupedGemm(
        name=name, groups=model.num_experts, rows=rows, n=outputs, k=inputs, dtype=opts.dtype
    )
    gradient = replace(forward, name=f"{name}.dgrad", role="dgrad", n=inputs, k=outputs)
    weight = _weight_gradient(forward, opts)
    if model.linear_bias and region is Region.EXPERT_COLUMN:
        weight += (_bias_gradients(name, model.num_experts * outputs, model.num_experts, opts),)
    biases = model.num_experts * outputs if model.linear_bias else 0
    return Node(
        forward=forward,
        module="moe.experts",
        region=region,
        input_gradient=(gradient,),
        weight_gradient=weight,
        parameters=float(model.num_experts * inputs * outputs + biases),
        saves=saves,
    )


def _bias_gradients(name: str, elements: int, experts: int, opts: GraphOptions) -> MemoryBound:
    """Adds each expert's to its main gradient. The product of weight gradients, or the cast before it, sums
    them over rows (Transformer Engine's `GroupedLinear`, remembered and not read).
    """
    size = elements * opts.grad_bytes
    return MemoryBound(
        name=f"{name}.bias_grad",
        kind="accumulate",
        read_bytes=size + elements * ACTIVATION_BYTES,
        write_bytes=size,
        kernels=experts,
    )


def _weight_gradient(forward: GroupedGemm, opts: GraphOptions) -> tuple[KernelOp, ...]:
    name = f"{forward.name}.wgrad"
    gemm = replace(forward, name=name, role="wgrad")
    if opts.fused_accumulation:
        return (replace(gemm, output_bytes_per_element=opts.grad_bytes, accumulate=True),)
    weights = float(forward.groups * forward.n * forward.k)
    read = weights * (gemm.output_bytes_per_element + opts.grad_bytes)
    add = MemoryBound(
        name=f"{name}.accumulate", kind="accumulate", read_bytes=read, write_bytes=weights * opts.grad_bytes
    )
    return (gemm, add)


def _shared_experts(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """An MLP that every token passes, split by TP like a dense one; empty where the model has none."""
    width, gates = shared_expert_width(model), 2 if model.gated_mlp else 1
    if not width:
        return ()
    size = opts.tokens * width * ACTIVATION_BYTES
    products = {
        "module": "moe.shared_experts",
        "tokens": opts.tokens,
        "dtype": opts.dtype,
        "grad_bytes": opts.grad_bytes,
        "fused_accumulation": opts.fused_accumulation,
    }
    return (
        linear(
            "shared_experts.fc1",
            region=Region.COLUMN,
            inputs=model.hidden_size,
            outputs=gates * width,
            bias=model.linear_bias,
            saves=(expert_input(model, opts),),
            **products,  # type: ignore[arg-type]
        ),
        elementwise(
            "shared_experts.activation",
            "activation",
            module="moe.shared_experts",
            region=Region.FEATURE,
            forward=(gates * size, size),
            backward=((1 + gates) * size, gates * size),
            saves=(kept("shared_experts.fc1.output", gates * size, Region.FEATURE, "moe.shared_experts"),),
        ),
        linear(
            "shared_experts.fc2",
            region=Region.ROW,
            inputs=width,
            outputs=model.hidden_size,
            saves=(
                activation(
                    "shared_experts.fc2.input", opts.tokens * width, Region.FEATURE, "moe.shared_experts"
                ),
            ),
            **products,  # type: ignore[arg-type]
        ),
    )


def _add_shared(model: ModelSpec, opts: GraphOptions) -> Node:
    """Adds the shared experts' output and the bias of their last layer; its gradient goes to both."""
    size = opts.tokens * model.hidden_size * ACTIVATION_BYTES
    return elementwise(
        "add_shared",
        "residual",
        module="moe.combine",
        region=Region.SEQUENCE,
        forward=(2 * size, size),
        backward=None,
        weight_gradient=(bias_gradient("shared_experts.fc2", size),) if model.linear_bias else (),
        replicated_parameters=float(model.hidden_size) if model.linear_bias else 0.0,
    )
