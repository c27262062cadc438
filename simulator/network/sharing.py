"""Max-min fair rates: what flows get that meet on links at the same time.

Progressive filling (Bertsekas and Gallager, "Data Networks", 2nd ed., section 6.5.2): all rates rise
together until a link is full; the flows on it are frozen, and the rest go on rising.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import inf
from typing import TypeVar

FlowId = TypeVar("FlowId", bound=Hashable)
LinkId = TypeVar("LinkId", bound=Hashable)


def fair_rates(
    flows: Mapping[FlowId, Sequence[LinkId]],
    capacities: Mapping[LinkId, float],
    *,
    ceilings: Mapping[FlowId, float] | None = None,
    weights: Mapping[FlowId, float] | None = None,
    crossings: Mapping[FlowId, Sequence[float]] | None = None,
) -> dict[FlowId, float]:
    """The max-min fair rate of every flow, bytes/s.

    Args:
        flows: the links each flow crosses; a link named twice is crossed twice.
        capacities: bytes/s of each link.
        ceilings: the most a flow can use, from its own algorithm or end points; missing: unlimited.
        weights: how many equal flows one entry stands for (a rank class); each of them gets the
        returned rate, and the links carry ``weight`` times it. Missing: 1.
        crossings: how many times its rate a flow puts on each of its links, in their order. Missing: once.

    Flows without links and ceiling run at infinite rate. The order of the mappings does not change the
    result.
    """
    ceilings = ceilings or {}
    carried = _carried(flows, weights or {}, crossings or {})
    rates: dict[FlowId, float] = {}
    load: dict[LinkId, float] = {}
    for path in carried.values():
        for link, times in path:
            load[link] = load.get(link, 0.0) + times
    left = {link: capacities[link] for link in load}
    active = dict(flows)
    while active:
        level, full = _next_level(active, load, left, ceilings)
        frozen = [
            flow for flow, path in active.items() if ceilings.get(flow, inf) <= level or full & set(path)
        ] or list(active)
        for flow in frozen:
            rate = min(level, ceilings.get(flow, inf))
            rates[flow] = rate
            del active[flow]
            for link, times in carried[flow]:
                left[link] -= times * rate
                load[link] -= times
    return {flow: rates[flow] for flow in flows}


def _carried(
    flows: Mapping[FlowId, Sequence[LinkId]],
    weights: Mapping[FlowId, float],
    crossings: Mapping[FlowId, Sequence[float]],
) -> dict[FlowId, list[tuple[LinkId, float]]]:
    """Of every flow, its links and how many times its rate they carry."""
    return {
        flow: [
            (link, weights.get(flow, 1.0) * times)
            for link, times in zip(path, crossings.get(flow) or [1.0] * len(path), strict=True)
        ]
        for flow, path in flows.items()
    }


def _next_level(
    active: Mapping[FlowId, Sequence[LinkId]],
    load: Mapping[LinkId, float],
    left: Mapping[LinkId, float],
    ceilings: Mapping[FlowId, float],
) -> tuple[float, set[LinkId]]:
    """The rate at which the next link fills or flow tops out, and the links that are full then."""
    used = {link for path in active.values() for link in path}
    shares = {link: max(0.0, left[link]) / load[link] for link in used}
    level = min(shares.values(), default=inf)
    level = min(level, *(ceilings.get(flow, inf) for flow in active))
    tolerance = level * (1 + 1e-12)
    return level, {link for link, share in shares.items() if share <= tolerance}
