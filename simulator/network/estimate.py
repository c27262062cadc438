"""What the network answers: a time, the algorithm that reached it, and how far off it may be."""

from __future__ import annotations

from typing import NamedTuple


class TransferEstimate(NamedTuple):
    """``random`` and ``site`` are relative standard errors, as in
    :class:`simulator.cost.estimate.Estimate`.
    """

    seconds: float
    algorithm: str  # ring, tree, nvls, nvls-tree, collnet, pat, pairwise, p2p
    protocol: str  # LL, LL128, Simple
    random: float
    site: float
