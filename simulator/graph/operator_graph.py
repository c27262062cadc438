"""Layers of plain operators, whole: what each computes forward and backward for one microbatch of samples.

Convolutions are implicit products; everything but them and dense products is limited by memory traffic.
Memory-bound kernels are those of cuDNN or PyTorch: one per operator, batch norm's statistics in a pass of
their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from simulator.graph.layer import (
    LayerGraph,
    Node,
    Region,
    Tensor,
    accumulated_gradient,
    bias_gradient,
    elementwise,
    input_gradient,
)
from simulator.graph.operators import DTYPE_BYTES, Gemm, ImplicitGemm
from simulator.spec.model import ModelSpec
from simulator.spec.operator_graph import (
    INPUT,
    PRODUCTS,
    GraphOperator,
    PlacedLayer,
    Shape,
    placed_layers,
)

if TYPE_CHECKING:
    from simulator.graph.options import GraphOptions


class Traffic(NamedTuple):
    """Passes of a memory-bound operator over what comes in and what goes out, and the kind of its cost."""

    kind: str
    forward: tuple[float, float]  # reads of the input, writes of the output
    backward: tuple[float, float, float]  # reads of the input, reads of the output, writes of the input
    keeps_input: bool = False
    keeps_output: bool = False


TRAFFIC = {
    "max_pool": Traffic("pool", (1, 1), (1, 2, 1), keeps_input=True, keeps_output=True),
    "avg_pool": Traffic("pool", (1, 1), (0, 1, 1)),
    "global_pool": Traffic("pool", (1, 1), (0, 1, 1)),
    "batch_norm": Traffic("norm", (2, 1), (2, 2, 1), keeps_input=True),
    "response_norm": Traffic("norm", (2, 1), (1, 2, 1), keeps_input=True, keeps_output=True),
    "activation": Traffic("activation", (1, 1), (0, 2, 1), keeps_output=True),
    "dropout": Traffic("activation", (1, 1.5), (0, 1.5, 1)),  # the mask is half as wide as 16 bits
    "add": Traffic("residual", (1, 1), (0, 0, 0)),
    "concat": Traffic("copy", (1, 1), (0, 1, 1)),
}


@lru_cache(maxsize=64)
def graph_layers(model: ModelSpec) -> tuple[PlacedLayer, ...]:
    """The layers of an operator graph in order, with what enters each."""
    return tuple(placed_layers(model.sample, model.layers))


def graph_layer(placed: PlacedLayer, opts: GraphOptions) -> LayerGraph:
    """One layer of an operator graph."""
    layer, entering, first = placed
    return LayerGraph(
        kind=f"{layer.name} of {entering}",
        nodes=tuple(_nodes(placed, opts)),
        input_bytes=0.0 if first else _bytes(entering, opts),
    )


def boundary_bytes(placed: PlacedLayer, opts: GraphOptions) -> float:
    """What enters a layer, for one microbatch."""
    return _bytes(placed.entering, opts)


def graph_parameters(model: ModelSpec) -> int:
    """Weights, biases and norms of all layers."""
    return sum(map(layer_parameters, graph_layers(model)))


def layer_parameters(placed: PlacedLayer) -> int:
    """Weights, biases and norms of one layer."""
    return sum(_parameters(*each) for each in _each(placed))


def graph_forward_flops(model: ModelSpec) -> float:
    """FLOPs of all products for one sample: a multiplication and an addition per weight and position."""
    return sum(
        2.0 * out.height * out.width * _weights(operator, entering)
        for placed in graph_layers(model)
        for operator, entering, out in _each(placed)
        if operator.op in PRODUCTS
    )


def _each(placed: PlacedLayer) -> Iterator[tuple[GraphOperator, Shape, Shape]]:
    """Every operator of a layer with its first input's shape and its own."""
    known = {INPUT: placed.entering}
    for operator, name, sources, out in placed.layer.shapes(placed.entering):
        known[name] = out
        yield operator, known[sources[0]], out


def _weights(operator: GraphOperator, entering: Shape) -> int:
    """Of one product."""
    if operator.op == "gemm":
        return entering.elements * operator.channels
    height, width = operator.kernel
    return height * width * (entering.channels // operator.groups) * operator.channels


def _parameters(operator: GraphOperator, entering: Shape, out: Shape) -> int:
    if operator.op in PRODUCTS:
        return _weights(operator, entering) + (out.channels if operator.bias else 0)
    return 2 * out.channels if operator.op == "batch_norm" else 0


def _bytes(shape: Shape, opts: GraphOptions) -> float:
    return opts.batch * shape.elements * DTYPE_BYTES[opts.dtype]


def _kept(source: str, shape: Shape, opts: GraphOptions) -> Tensor:
    """An operator's output, kept by itself or by who reads it."""
    return Tensor(name=f"{source}.output", bytes=_bytes(shape, opts), region=Region.FEATURE, origin=source)


def _nodes(placed: PlacedLayer, opts: GraphOptions) -> Iterator[Node]:
    layer, entering, first = placed
    operators = list(layer.shapes(entering))
    uses = Counter(source for _, _, sources, _ in operators for source in sources)
    known = {INPUT: entering}
    if not first:
        yield from _fork(INPUT, entering, uses[INPUT], opts)
    for operator, name, sources, out in operators:
        inputs = {source: known[source] for source in sources}
        known[name] = out
        if operator.op in PRODUCTS:
            yield _product(operator, name, inputs, out, opts, whole=first and INPUT in inputs)
        elif operator.op == "softmax":
            yield _softmax(name, out, opts)
        else:
            yield _memory_bound(operator, name, inputs, out, opts)
        yield from _fork(name, out, uses[name], opts)


def _fork(source: str, shape: Shape, uses: int, opts: GraphOptions) -> Iterator[Node]:
    """Where several operators read a tensor, its gradients are added, two at a time."""
    sums = uses - 1
    if sums > 0:
        size = _bytes(shape, opts)
        yield elementwise(
            f"{source}.fork",
            "residual",
            module=f"{source}.fork",
            region=Region.FEATURE,
            forward=(0.0, 0.0),
            backward=(2 * sums * size, sums * size),
            kernels=(0, sums),
        )


def _product(
    operator: GraphOperator,
    name: str,
    inputs: dict[str, Shape],
    out: Shape,
    opts: GraphOptions,
    *,
    whole: bool,
) -> Node:
    """A convolution or a dense product. ``whole``: it reads the sample itself, which needs no gradient."""
    ((source, entering),) = inputs.items()
    forward = _forward(operator, name, entering, out, opts)
    weight = accumulated_gradient(forward, opts.grad_bytes, fused=opts.fused_accumulation)
    if operator.bias:
        weight += (bias_gradient(name, _bytes(out, opts)),)
    return Node(
        forward=forward,
        module=name,
        region=Region.CHANNEL,
        input_gradient=() if whole else (input_gradient(forward),),
        weight_gradient=weight,
        boundary_bytes=0.0 if whole else _bytes(entering, opts),
        parameters=float(_parameters(operator, entering, out)),
        saves=(_kept(source, entering, opts),),
    )


def _forward(operator: GraphOperator, name: str, entering: Shape, out: Shape, opts: GraphOptions) -> Gemm:
    wide = DTYPE_BYTES[opts.dtype]
    if operator.op == "gemm":
        return Gemm(
            name=name,
            m=opts.batch,
            n=operator.channels,
            k=entering.elements,
            dtype=opts.dtype,
            output_bytes_per_element=wide,
        )
    height, width = operator.kernel
    groups = operator.groups
    return ImplicitGemm(
        name=name,
        m=opts.batch * out.height * out.width,
        n=operator.channels // groups,
        k=height * width * entering.channels // groups,
        batch=groups,
        dtype=opts.dtype,
        output_bytes_per_element=wide,
        reuse=height * width * out.height * out.width / (entering.height * entering.width),
    )


def _softmax(name: str, out: Shape, opts: GraphOptions) -> Node:
    """Softmax and loss over the last features; split over ranks, their maxima, sums and targets meet."""
    size = _bytes(out, opts)
    return elementwise(
        name,
        "cross_entropy",
        module=name,
        region=Region.FEATURE,
        forward=(2 * size, size),
        backward=(size, size),
        reductions=(opts.batch * 4.0,) * 3,
        saves=(_kept(name, out, opts),),
    )


def _memory_bound(
    operator: GraphOperator, name: str, inputs: dict[str, Shape], out: Shape, opts: GraphOptions
) -> Node:
    traffic = TRAFFIC[operator.op]
    size_in = sum(_bytes(shape, opts) for shape in inputs.values())
    size_out = _bytes(out, opts)
    reads, writes = traffic.forward
    back_in, back_out, back_writes = traffic.backward
    saves = [_kept(source, shape, opts) for source, shape in inputs.items() if traffic.keeps_input]
    if traffic.keeps_output:
        saves.append(_kept(name, out, opts))
    if operator.op == "dropout":
        mask = opts.batch * out.elements * 1.0
        saves.append(Tensor(name=f"{name}.mask", bytes=mask, region=Region.FEATURE, origin=name))
    node = elementwise(
        name,
        traffic.kind,
        module=name,
        region=Region.FEATURE,
        forward=(reads * size_in, writes * size_out),
        backward=(back_in * size_in + back_out * size_out, back_writes * size_in)
        if any(traffic.backward)
        else None,
        saves=tuple(saves),
    )
    return replace(node, parameters=float(_parameters(operator, out, out)))
