"""The GEMMs of a mixture of experts: one per expert, in one launch or in one each.

In one launch it is a batch of equal GEMMs to this model: the tiles of all experts share the device's waves,
and rows per expert that do not fill a tile waste it. It has coefficients of its own, because other kernels
run it. A launch each is the library's ordinary GEMM once per expert; several streams hide little of the gaps
(measured by SimuMax with 500 rows and more per expert, over this: A100 0.95, 0.93 and 1.04 in the median
forward, input and weight gradient; on B200 1.35, 1.43 and 1.7, where all its GEMMs take 1.4 times as long).
Uneven routing enters through the rows: the most loaded rank holds more of them.
"""

from __future__ import annotations

from typing import NamedTuple

from simulator.graph.operators import GemmRole


class GroupShape(NamedTuple):
    """The equal products that stand for a grouped GEMM."""

    m: float
    n: float
    k: float
    batch: float


def group_shape(*, groups: int, rows: float, n: int, k: int, role: GemmRole) -> GroupShape:
    """Rows spread evenly over the groups that have any; a weight gradient sums over the rows of its group."""
    active = max(1.0, min(float(groups), float(rows)))
    per_group = max(1.0, rows / active)
    if role == "wgrad":
        return GroupShape(m=n, n=k, k=per_group, batch=active)
    return GroupShape(m=per_group, n=n, k=k, batch=active)
