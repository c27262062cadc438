"""What of a layer its CUDA graph holds (Megatron-LM's ``--cuda-graph-scope``), and what crosses its edges.

A graph reads and writes tensors of its own. Where others work before and after it, its input is copied into
them, and in the backward the gradients of its outputs (`_CudagraphReplayNode` of Megatron-Core 0.18;
Transformer Engine's `make_graphed_callables`, remembered and not read). Its outputs are used where they are.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.graph.layer import LayerGraph, Node, Region, elementwise
from simulator.graph.routing import row_width
from simulator.spec.model import ModelSpec

# scope -> modules of nodes, or what they are part of; norms and residuals lie at the edge of each part
_MODULES = {
    "attn": frozenset({"attention", "core_attn"}),
    "mamba": frozenset({"mamba"}),
    "mlp": frozenset({"mlp"}),
    "moe_router": frozenset({"moe.router", "moe.shared_experts", "moe.latent"}),
    "moe_preprocess": frozenset({"moe"}),
}
_EDGES = frozenset({"layernorm", "residual", "graph"})


def in_scope(module: str, scope: tuple[str, ...]) -> bool:
    """Whether a graph of these parts holds a module; the empty scope is the whole layer."""
    if not scope or module in _EDGES:
        return True
    return any(
        module == known or (known != "moe" and module.startswith(f"{known}."))
        for part in scope
        for known in _MODULES[part]
    )


def with_copies(layer: LayerGraph, model: ModelSpec, scope: tuple[str, ...], *, dynamic: bool) -> LayerGraph:
    """The layer with the copies at the edges of its graph; none where the graph holds all of it.

    ``dynamic``: the graph ends before the routed experts, as the host does not know their rows beforehand.
    """
    work = [at for at, node in enumerate(layer.nodes) if node.module not in _EDGES]
    routed = (at for at in work if dynamic and layer.nodes[at].region is Region.DISPATCH)
    end = next(routed, len(layer.nodes))
    held = [at for at in work if at < end and in_scope(layer.nodes[at].module, scope)]
    if not held or held == work:
        return layer
    first, last = held[0], held[-1]
    stream = layer.input_bytes
    outputs = stream
    if layer.nodes[last].module.startswith(
        "moe"
    ):  # residual stream, rows to be sent, output of shared experts
        shared = any(layer.nodes[at].module == "moe.shared_experts" for at in held)
        outputs += stream * (row_width(model) / model.hidden_size + shared)
    return replace(
        layer,
        nodes=(
            *layer.nodes[:first],
            _copied("graph_input", stream, 0.0),
            *layer.nodes[first : last + 1],
            _copied("graph_output", 0.0, outputs),
            *layer.nodes[last + 1 :],
        ),
    )


def _copied(name: str, forward: float, backward: float) -> Node:
    return elementwise(
        name,
        "copy",
        module="graph",
        region=Region.SEQUENCE,
        forward=(forward, forward),
        backward=(backward, backward) if backward else None,
        kernels=(int(forward > 0.0), 1),
    )
