"""How tokens find their experts, whole: the gate, the choice, and the orders that rows are put into."""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import Node, Region, Tensor, elementwise, linear
from simulator.graph.options import GraphOptions
from simulator.graph.transformer import ACTIVATION_BYTES, activation
from simulator.spec.model import ModelSpec

LOGIT_BYTES = 4.0  # scores, probabilities and the auxiliary loss are fp32
INDEX_BYTES = 4.0
MAP_BYTES = 1.0  # whether a token goes to an expert
# Launches of Megatron-LM's router without fused kernels, counted in `topk_routing_with_score_function`,
# `compute_routing_scores_for_aux_loss` and `switch_load_balancing_loss_func`: top-k (2), softmax, two masks
# with their scatters (5); scores and map for the loss (5); counts, products and means of the loss (7).
# Backward: the scatter, softmax and loss products again.
ROUTER_KERNELS = (20, 10)
# With Transformer Engine's fused ones: top-k, scores for the loss, rows per expert, the loss; its scaling and
# logging. Backward: scale of the loss (2), loss, scores, top-k, sum of both gradients.
FUSED_ROUTER_KERNELS = (6, 6)
# Launches that prepare the exchange of rows, counted in `MoEAlltoAllTokenDispatcher.preprocess` of Megatron-
# Core 0.16: rows per expert (2), rows for and from each rank and local expert (6), their copies to the host
# (5); and the maps of fused permutation (2) and of both sorts (2) beside the kernels that follow them.
PREPARING_KERNELS = 17


def row_count(model: ModelSpec, opts: GraphOptions) -> int:
    """Copies of tokens that the experts work on."""
    return opts.tokens * model.num_experts_per_tok


def row_width(model: ModelSpec) -> int:
    """Features of a row."""
    return model.moe_latent_size or model.hidden_size


def kept(name: str, size: float, region: Region, origin: str) -> Tensor:
    """A tensor of so many bytes."""
    return Tensor(name=name, bytes=size, region=region, origin=origin)


def expert_input(model: ModelSpec, opts: GraphOptions) -> Tensor:
    """What router, latent projection and shared experts start from."""
    return activation("moe.input", opts.tokens * model.hidden_size, Region.SEQUENCE, "layernorm")


def router(model: ModelSpec, opts: GraphOptions) -> tuple[Node, ...]:
    """The gate's product and the choice of experts. Its weights are whole on every rank."""
    scores = opts.tokens * model.num_experts * LOGIT_BYTES
    wide = "bf16" if opts.dtype not in ("fp16", "fp32", "tf32") else opts.dtype
    gate = linear(
        "router",
        module="moe.router",
        region=Region.SEQUENCE,
        tokens=opts.tokens,
        inputs=model.hidden_size,
        outputs=model.num_experts,
        dtype=wide,
        bias=model.linear_bias,
        grad_bytes=opts.grad_bytes,
        fused_accumulation=False,
        saves=(expert_input(model, opts),),
    )
    choice = elementwise(
        "top_k",
        "router",
        module="moe.router",
        region=Region.SEQUENCE,
        forward=(5 * scores, 3 * scores),
        backward=(3 * scores, 2 * scores),
        kernels=FUSED_ROUTER_KERNELS if opts.router_fusion else ROUTER_KERNELS,
        saves=(kept("router.scores", scores, Region.SEQUENCE, "moe.router"),),
    )
    return (
        replace(gate, boundary_bytes=0.0, parameters=0.0, replicated_parameters=gate.parameters),
        choice,
    )


def exchange_plan(model: ModelSpec, opts: GraphOptions) -> Node:
    """How many rows go where, from the map of tokens to experts (a byte each). It has no gradient."""
    return elementwise(
        "exchange_plan",
        "router",
        module="moe",
        region=Region.SEQUENCE,
        forward=(opts.tokens * model.num_experts * MAP_BYTES, 0.0),
        backward=None,
        kernels=(PREPARING_KERNELS, 0),
    )


def permute(model: ModelSpec, opts: GraphOptions) -> Node:
    """Copies tokens into the order of their experts; a fused kernel reads each token once.

    Backward sums the copies' gradients.
    """
    token = opts.tokens * row_width(model) * ACTIVATION_BYTES
    rows = row_count(model, opts) * row_width(model) * ACTIVATION_BYTES
    read = token if opts.permute_fusion else rows
    index = row_count(model, opts) * INDEX_BYTES
    node = elementwise(
        "permute",
        "permute",
        module="moe.dispatch",
        region=Region.DISPATCH,
        forward=(read + index, rows),
        backward=(rows + index, token) if opts.permute_fusion else (2 * rows + index, rows + token),
        kernels=(2, 1) if opts.permute_fusion else (5, 3),
        saves=(kept("permute.map", 2 * index, Region.SEQUENCE, "moe.dispatch"),),
    )
    return replace(node, boundary_bytes=rows)


def local_sort(model: ModelSpec, opts: GraphOptions, name: str, region: Region) -> Node:
    """On the experts' rank: rows sorted by source become sorted by expert, or the reverse."""
    rows = row_count(model, opts) * row_width(model) * ACTIVATION_BYTES
    fused = opts.permute_fusion
    node = elementwise(
        name,
        "permute",
        module="moe.dispatch" if region is Region.ARRIVAL else "moe.combine",
        region=region,
        forward=(rows, rows),
        backward=(rows, rows),
        kernels=(1, 1) if fused else (2, 2),
    )
    return replace(node, boundary_bytes=rows)


def unpermute(model: ModelSpec, opts: GraphOptions) -> Node:
    """Sums the copies of each token where it came from. Backward copies the gradient to all of them."""
    token = opts.tokens * row_width(model) * ACTIVATION_BYTES
    rows = row_count(model, opts) * row_width(model) * ACTIVATION_BYTES
    index = row_count(model, opts) * INDEX_BYTES
    fused = opts.permute_fusion
    node = elementwise(
        "unpermute",
        "unpermute",
        module="moe.combine",
        region=Region.COMBINE,
        forward=(rows + index, token) if fused else (2 * rows + index, rows + token),
        backward=((token if fused else rows) + index, rows),
        kernels=(1, 1) if fused else (3, 2),
    )
    return replace(node, boundary_bytes=rows)
