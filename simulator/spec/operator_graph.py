"""A model as layers of plain operators, for networks that are no transformers. Shapes follow from the sample.

Pure arithmetic: what an operator makes of the shapes that come in. :mod:`simulator.graph.operator_graph` says
what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

from pydantic import ConfigDict

from simulator.spec.fields import Accepts, Choice, Count, CountOrZero, Flag, Integer, Text, refused

PRODUCTS = ("conv2d", "gemm")
WINDOWED = ("conv2d", "max_pool", "avg_pool")
JOINS = ("add", "concat")
OPERATORS = (
    *(*PRODUCTS, "max_pool", "avg_pool", "global_pool", "batch_norm", "response_norm"),
    *("activation", "dropout", *JOINS, "softmax"),
)
INPUT = "input"  # the name of what enters a layer


class Shape(NamedTuple):
    """One sample's activation."""

    channels: int
    height: int = 1
    width: int = 1

    @property
    def elements(self) -> int:
        """Of one sample."""
        return prod(self)

    def __str__(self) -> str:
        return "×".join(map(str, self))


@dataclass(frozen=True)
class Window(Accepts):
    """Height and width of a window: one number for both, or a list of two."""

    def check(self, value: Any) -> tuple[int, int]:
        sides = value if isinstance(value, list | tuple) else (value, value)
        if len(sides) != 2 or not all(type(side) is int and side >= 0 for side in sides):
            refused("must be a whole number, or a list of two (height, width)", "3")
        return (sides[0], sides[1])

    @property
    def meaning(self) -> str:
        return "a whole number, or [height, width]"


Pair: TypeAlias = Annotated[tuple[int, int], Window()]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOperator:
    """One operator of a layer."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    op: Annotated[str, Choice(OPERATORS)]
    """What it does; batch_norm has two parameters per channel, response_norm none."""
    name: Text = ""
    """For others to refer to; empty: its place in the layer."""
    inputs: tuple[Text, ...] = ()
    """Earlier operators of the layer, or input; empty: the operator before."""
    channels: CountOrZero = 0
    """Of conv2d and gemm: output features."""
    kernel: Pair = (0, 0)
    """Of conv2d and pools: the window."""
    stride: Count = 1
    """Of conv2d and pools."""
    padding: Pair = (0, 0)
    """Of conv2d and pools, on each side."""
    groups: Count = 1
    """Of conv2d: groups of channels that do not see each other."""
    bias: Flag = True
    """Of conv2d and gemm."""

    def output(self, inputs: Sequence[Shape]) -> Shape:
        """The shape it makes. Raises ValueError with the rule."""
        first = inputs[0]
        if self.op not in JOINS and len(inputs) > 1:
            raise ValueError(f"{self.op} takes one input")
        if self.op in PRODUCTS and not self.channels:
            raise ValueError(f"{self.op} needs channels, its output features")
        if self.op in WINDOWED:
            return self._windowed(first)
        if self.op == "gemm":
            return Shape(self.channels)
        if self.op == "global_pool":
            return Shape(first.channels)
        if self.op == "concat":
            if len({shape[1:] for shape in inputs}) > 1:
                raise ValueError(f"concat joins equal heights and widths, not {_listed(inputs)}")
            return first._replace(channels=sum(shape.channels for shape in inputs))
        if len(set(inputs)) > 1:
            raise ValueError(f"add takes equal shapes, not {_listed(inputs)}")
        return first

    def _windowed(self, shape: Shape) -> Shape:
        if 0 in self.kernel:
            raise ValueError(f"{self.op} needs a kernel of at least 1")
        if self.op == "conv2d" and (shape.channels % self.groups or self.channels % self.groups):
            raise ValueError(
                f"groups {self.groups} must divide {shape.channels} and {self.channels} channels"
            )
        sides = [
            (side + 2 * pad - window) // self.stride + 1
            for side, window, pad in zip(shape[1:], self.kernel, self.padding, strict=True)
        ]
        if min(sides) < 1:
            raise ValueError(f"kernel {_listed(self.kernel)} is larger than its input {shape}")
        return Shape(self.channels or shape.channels, *sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphLayer:
    """Operators that stay together: the unit that pipeline stages are made of."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Text
    """Of the layer."""
    repeat: Annotated[int, Integer(1, 10_000)] = 1
    """How many such layers follow each other."""
    operators: tuple[GraphOperator, ...]
    """In the order in which they run; the last one's output leaves the layer."""

    def shapes(self, entering: Shape) -> Iterator[tuple[GraphOperator, str, tuple[str, ...], Shape]]:
        """Each operator with its name, the names of its inputs and the shape it makes.

        Raises ValueError with the rule, naming the operator.
        """
        known, before = {INPUT: entering}, INPUT
        for place, operator in enumerate(self.operators):
            name = operator.name or f"{operator.op}{place}"
            inputs = operator.inputs or (before,)
            missing = [source for source in inputs if source not in known]
            if missing or name in known:
                rule = f"has inputs {', '.join(missing)}, which" if missing else "has a name that"
                state = f"no earlier operator is; known are {', '.join(known)}" if missing else "another has"
                raise ValueError(f"{self.name}.{name} {rule} {state}")
            try:
                known[name] = operator.output([known[source] for source in inputs])
            except ValueError as error:
                raise ValueError(f"{self.name}.{name}: {error}") from None
            yield operator, name, inputs, known[name]
            before = name

    def leaving(self, entering: Shape) -> Shape:
        """The shape of its output."""
        return [shape for *_, shape in self.shapes(entering)][-1]


class PlacedLayer(NamedTuple):
    """A layer with what enters it; ``first``: that needs no gradient."""

    layer: GraphLayer
    entering: Shape
    first: bool = False


def placed_layers(sample: Sequence[int], layers: Sequence[GraphLayer]) -> Iterator[PlacedLayer]:
    """All layers in order, repetitions included. Raises ValueError where shapes do not fit."""
    shape, first = Shape(*sample), True
    for layer in layers:
        for _ in range(layer.repeat):
            yield PlacedLayer(layer, shape, first)
            shape, first = layer.leaving(shape), False


def _listed(items: Sequence[object]) -> str:
    return " and ".join(map(str, items))
