"""Which parts of a layer its CUDA graph holds (Megatron-LM's ``--cuda-graph-scope``)."""

from __future__ import annotations

# scope -> modules of nodes, or what they are part of; norms and residuals lie at the edge of each part
_MODULES = {
    "attn": frozenset({"attention", "core_attn"}),
    "mamba": frozenset({"mamba"}),
    "mlp": frozenset({"mlp"}),
    "moe_router": frozenset({"moe.router", "moe.shared_experts", "moe.latent"}),
    "moe_preprocess": frozenset({"moe"}),
}
_EDGES = frozenset({"layernorm", "residual"})


def in_scope(module: str, scope: tuple[str, ...]) -> bool:
    """Whether a graph of these parts holds a module; the empty scope is the whole layer."""
    if not scope or module in _EDGES:
        return True
    return any(
        module == known or (known != "moe" and module.startswith(f"{known}."))
        for part in scope
        for known in _MODULES[part]
    )
