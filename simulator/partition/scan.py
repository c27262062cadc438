"""Context parallelism of a scan: it needs whole sequences, so ranks trade tokens of all heads for some heads.

As in Megatron-LM's ``mamba_context_parallel.py``: one all-to-all before the convolution, one after the scan,
each between copies that also undo the zig-zag order of attention's slices. Work stays as large; groups and
heads divide over the ranks (:mod:`simulator.spec.rules.context`).
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.graph.layer import Node
from simulator.graph.operators import Collective, MemoryBound
from simulator.partition.segment import SegmentBuilder
from simulator.partition.tensor import TensorParallel, backward_steps, forward_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanNode(Node):
    """The first or last node of a scan whose sequences CP ranks share."""


def share_scan(node: Node, ranks: int) -> Node:
    """The node as it is, unless tokens cross to heads around it."""
    if ranks == 1 or not (node.enters or node.leaves):
        return node
    return ScanNode(**{name: getattr(node, name) for name in Node.__dataclass_fields__})


def scan_forward(node: ScanNode, tp: TensorParallel, out: SegmentBuilder) -> None:
    """Appends a rank's forward work and what crosses around it."""
    _exchange(node, node.enters, out)
    forward_steps(node, tp, out)
    _exchange(node, node.leaves, out)


def scan_backward(node: ScanNode, tp: TensorParallel, out: SegmentBuilder) -> None:
    """Appends the gradients of :func:`scan_forward`."""
    _exchange(node, node.leaves, out)
    backward_steps(node, tp, out)
    _exchange(node, node.enters, out)


def _exchange(node: Node, size: float, out: SegmentBuilder) -> None:
    if not size:
        return
    name = node.forward.name
    pack, unpack = (
        MemoryBound(name=f"{name}.{step}", kind="transpose", read_bytes=size, write_bytes=size)
        for step in ("pack", "unpack")
    )
    out.compute(pack)
    out.exposed(Collective(name=f"{name}.all_to_all", kind="all_to_all", axis="cp", size_bytes=size))
    out.compute(unpack)
