"""Quantised operands on one rank: what runs before and after a gather, and how much the gather moves.

With sequence parallelism an operand is quantised where it is split and gathered in the narrow format, so the
gather moves fewer bytes; what must lie transposed is transposed once it is whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from simulator.graph.layer import Node
from simulator.graph.operators import Collective, Gemm, GroupedGemm, MemoryBound, Operator
from simulator.graph.precision import WIDE_BYTES, Recipe, quantize, transpose

AMAX_BYTES = 4.0  # one fp32 maximum


class Operand(NamedTuple):
    """Kernels around the gather of an operand; ``share`` is what the gather moves of its 16-bit size."""

    before: tuple[Operator, ...] = ()
    share: float = 1.0
    after: tuple[Operator, ...] = ()


def forward_input(node: Node, parts: int) -> Operand:
    """The input of the forward product; ``parts`` ranks hold it (1: it is not gathered)."""
    if node.quantization is None:
        return Operand()
    recipe, name = node.quantization.recipe, f"{node.forward.name}.input"
    elements = _inputs(node)
    weights = () if recipe.cached_weights else _weight_casts(node, recipe)
    later = recipe.keeps_wide_input or (parts > 1 and recipe.second_is_transpose)
    copies = 1 if later else _copies(node, recipe)
    if node.quantization.input_done:
        turned = copies == 2 and recipe.second_is_transpose
        casts: tuple[Operator, ...] = (transpose(name, elements / parts, recipe),) if turned else ()
        return Operand((*casts, *weights), recipe.element_bytes / WIDE_BYTES)
    if not recipe.narrow_gather:
        return Operand((), 1.0, (*_casts(node, name, elements, recipe, copies=copies), *weights))
    casts = _agreed(_casts(node, name, elements / parts, recipe, copies=copies), recipe, parts)
    return Operand((*casts, *weights), recipe.element_bytes / WIDE_BYTES)


def output_gradient(node: Node, parts: int) -> Operand:
    """The gradient of the output, before the input gradient; both gradients use it."""
    if node.quantization is None:
        return Operand()
    recipe, name = node.quantization.recipe, f"{node.forward.name}.grad"
    elements = _outputs(node)
    weights = () if recipe.cached_weights else _weight_casts(node, recipe)
    if not recipe.narrow_gather:
        copies = _copies(node, recipe)
        return Operand((), 1.0, (*_casts(node, name, elements, recipe, copies=copies), *weights))
    copies = 1 if parts > 1 and recipe.second_is_transpose else _copies(node, recipe)
    casts = _agreed(_casts(node, name, elements / parts, recipe, copies=copies), recipe, parts)
    return Operand((*casts, *weights), copies * recipe.element_bytes / WIDE_BYTES)


def saved_input(node: Node, parts: int) -> Operand:
    """The kept input, before the weight gradient; a wide one is quantised first."""
    if node.quantization is None or not node.weight_gradient:
        return Operand()
    recipe, name = node.quantization.recipe, f"{node.forward.name}.saved_input"
    elements = _inputs(node)
    if recipe.keeps_wide_input and not recipe.narrow_gather:
        return Operand((), 1.0, _casts(node, name, elements, recipe, copies=1))
    again = _casts(node, name, elements / parts, recipe, copies=1) if recipe.keeps_wide_input else ()
    turned = (transpose(name, elements, recipe),) if parts > 1 and recipe.transposed else ()
    return Operand(again, recipe.element_bytes / WIDE_BYTES, turned)


def gathered_gradient(node: Node, parts: int) -> tuple[Operator, ...]:
    """What turns a gathered output gradient for the weight gradient."""
    if node.quantization is None or parts == 1 or not node.weight_gradient:
        return ()
    if not node.quantization.recipe.transposed:
        return ()
    if not node.quantization.recipe.narrow_gather:
        return ()
    elements = _outputs(node)
    return (transpose(f"{node.forward.name}.grad", elements, node.quantization.recipe),)


def weight_preparation(node: Node, *, only_copy: bool) -> tuple[Operator, ...]:
    """Once a step: quantised copies of a rank's weights, kept for all microbatches.

    ``only_copy``: the weights arrive quantised already (fp8 parameters); what is left is the second copy.
    MXFP8's copies differ, so they are made from 16 bits even then.
    """
    if node.quantization is None or not node.quantization.recipe.cached_weights:
        return ()
    recipe, name = node.quantization.recipe, f"{node.forward.name}.weight"
    if only_copy and recipe.dtype != "mxfp8":
        return (transpose(name, quantized_weights(node), recipe),) if recipe.both else ()
    return _casts(node, name, quantized_weights(node), recipe, copies=recipe.copies)


def cached_weight_bytes(recipe: Recipe) -> float:
    """Bytes per weight of the quantised copies that stay between microbatches."""
    return recipe.element_bytes * recipe.copies if recipe.cached_weights else 0.0


def quantized_weights(node: Node) -> float:
    """Weights of a rank that are quantised."""
    return 0.0 if node.quantization is None else _weights(_product(node))


def _copies(node: Node, recipe: Recipe) -> int:
    """Of an activation or gradient: the second copy is for a weight gradient alone."""
    return recipe.copies if node.weight_gradient else 1


def _casts(node: Node, name: str, elements: float, recipe: Recipe, *, copies: int) -> tuple[MemoryBound, ...]:
    """Kernels that quantise an operand; of experts with a launch each, every one's rows or weights apart."""
    launches = node.forward.kernels if isinstance(node.forward, GroupedGemm) else 1
    ops = quantize(name, elements, recipe, copies=copies)
    return tuple(replace(op, kernels=op.kernels * launches) for op in ops)


def _weight_casts(node: Node, recipe: Recipe) -> tuple[Operator, ...]:
    return _casts(node, f"{node.forward.name}.weight", _weights(_product(node)), recipe, copies=1)


def _agreed(casts: tuple[MemoryBound, ...], recipe: Recipe, parts: int) -> tuple[Operator, ...]:
    """Between a tensor's amax pass and its cast, the ranks that hold its parts agree on the maximum."""
    if parts == 1 or not (recipe.amax_pass and recipe.shared_amax):
        return casts
    amax, cast = casts
    agree = Collective(name=f"{amax.name}.all_reduce", kind="all_reduce", axis="tp", size_bytes=AMAX_BYTES)
    return (amax, agree, cast)


def _product(node: Node) -> Gemm | GroupedGemm:
    if not isinstance(node.forward, Gemm | GroupedGemm):
        raise TypeError(f"{node.forward.name!r} is no matrix product and cannot be quantised")
    return node.forward


def _rows(op: Gemm | GroupedGemm) -> float:
    return float(op.rows if isinstance(op, GroupedGemm) else op.batch * op.m)


def _inputs(node: Node) -> float:
    op = _product(node)
    return _rows(op) * op.k


def _outputs(node: Node) -> float:
    op = _product(node)
    return _rows(op) * op.n


def _weights(op: Gemm | GroupedGemm) -> float:
    return float((op.groups if isinstance(op, GroupedGemm) else op.batch) * op.n * op.k)
