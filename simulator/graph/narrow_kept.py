"""Activations kept in fewer bits than they were computed in, to save memory beside fp8 products.

- ``mlp_activation_input``: what the MLP's activation reads, in fp8 (DeepSeek-V3 report, section 3.3.3, of
  experts' SwiGLU; Megatron-Core's ``activation_func_fp8_input_store``).
- ``attention_output``: kept once, for attention's own backward and as the input of the projection after it,
  in 12 bits (E5M6, same section), from which the weight gradient's fp8 copy is made again.

Each is cast when it is stored and again when it is used.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from simulator.graph.layer import LayerGraph, Node, Tensor
from simulator.graph.operators import Attention, MemoryBound
from simulator.graph.precision import WIDE_BYTES, Recipe

E5M6_BYTES = 1.5
SCALE_BYTES = 4.0 / 128  # one fp32 scale per 128 elements, as DeepSeek has it
INPUTS = ("fc1.output", "experts.fc1.output", "shared_experts.fc1.output")


def keep_narrow(layer: LayerGraph, recipe: Recipe, kept: Collection[str]) -> LayerGraph:
    """A quantised layer that keeps such activations narrow; ``kept``: those named above."""
    nodes: list[Node] = []
    for node in layer.nodes:
        wide = [tensor for tensor in node.saves if tensor.name in INPUTS]
        if "mlp_activation_input" in kept and wide:
            narrow = [_narrow(tensor, recipe.element_bytes) for tensor in wide]
            nodes += [_cast(t, recipe.element_bytes, node) for t in wide]
            nodes.append(_with(node, [t for t in node.saves if t not in wide] + narrow))
        elif "attention_output" in kept and isinstance(node.forward, Attention):
            nodes += _narrow_output(node)
        elif "attention_output" in kept and node.forward.name == "proj":
            nodes.append(_from_narrow(node))
        else:
            nodes.append(node)
    return replace(layer, kind=f"{layer.kind}, kept narrow" if kept else layer.kind, nodes=tuple(nodes))


def _narrow_output(core: Node) -> list[Node]:
    """Attention and the cast of its output."""
    size = E5M6_BYTES + SCALE_BYTES
    wide = [tensor for tensor in core.saves if tensor.name == "proj.input"]
    narrow = [_narrow(tensor, size) for tensor in wide]
    kept = _with(core, [t for t in core.saves if t not in wide] + narrow)
    return [kept, *(_cast(tensor, size, core) for tensor in wide)]


def _from_narrow(projection: Node) -> Node:
    """The projection keeps no input of its own: it quantises the narrow one for its weight gradient."""
    quantization = projection.quantization
    if quantization is None:
        return projection
    again = replace(quantization, recipe=replace(quantization.recipe, keeps_wide_input=True))
    return replace(projection, saves=(), quantization=again)


def _with(node: Node, saves: list[Tensor]) -> Node:
    return replace(node, saves=tuple(saves))


def _narrow(tensor: Tensor, element_bytes: float) -> Tensor:
    return replace(tensor, name=f"{tensor.name}.narrow", bytes=tensor.bytes * element_bytes / WIDE_BYTES)


def _cast(tensor: Tensor, element_bytes: float, beside: Node) -> Node:
    """Stored narrow in the forward pass, wide again in the backward pass."""
    wide, narrow = tensor.bytes, tensor.bytes * element_bytes / WIDE_BYTES
    name = f"{tensor.name}.store"
    store = MemoryBound(name=name, kind="quantize", read_bytes=wide, write_bytes=narrow)
    load = replace(store, name=f"{tensor.name}.load", read_bytes=narrow, write_bytes=wide)
    return Node(forward=store, module=tensor.origin, region=beside.region, input_gradient=(load,))
