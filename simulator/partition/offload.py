"""Activations that wait in host memory: kept tensors leave after a layer's forward and come back before its
backward.

Transformer Engine's layer-wise offload works a layer ahead: what one layer keeps is copied out while the next
layer computes, which cannot end before the copy has; in backward a layer's tensors come while the layer after
it computes (vDNN plans the same: Rhu 2016). A chunk's last layer has no layer after it and copies beside its
own work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.graph.operators import Copy
from simulator.partition.layer_share import LayerShare
from simulator.partition.segment import Segment, Step


def offload(layers: Sequence[LayerShare], count: int) -> list[LayerShare]:
    """A chunk's layers, the first ``count`` of them with what they keep on the host.

    Two layers' tensors are on the device at a time: one layer's in use, another's on its way.
    """
    shares = list(layers)
    for index, layer in enumerate(layers[:count]):
        size = layer.saved_bytes
        if size:
            carrier = min(index + 1, len(shares) - 1)
            shares[index] = _emptied(shares[index], size)
            shares[carrier] = _carrying(shares[carrier], size, layer.kind)
    return shares


def _emptied(share: LayerShare, size: float) -> LayerShare:
    return replace(share, saved_bytes=0.0, working_bytes=share.working_bytes + size)


def _carrying(share: LayerShare, size: float, kind: str) -> LayerShare:
    out = Copy(name=f"{kind}.offload", kind="d2h", size_bytes=size)
    back = Copy(name=f"{kind}.reload", kind="h2d", size_bytes=size)
    return replace(
        share,
        forward=_beside(share.forward, out),
        backward=_beside(share.backward, back),
        working_bytes=share.working_bytes + size,
    )


def _beside(segment: Segment, copy: Copy) -> Segment:
    """A copy that starts with the segment, on the stream of its direction."""
    return replace(segment, steps=(*segment.steps, Step(copy, copy.kind)))
