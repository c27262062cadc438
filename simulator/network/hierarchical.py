"""Collectives in steps, as Horovod and DeepSpeed split them: inside the domains, across, inside again.

An all-reduce is a reduce-scatter inside, an all-reduce of each rank's share with its counterparts in the
other domains, and an all-gather inside; a gather or scatter is two steps. Latency grows with the number of
domains instead of ranks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from simulator.network.placement import Group


class Part(NamedTuple):
    """One step: a collective of its own over a smaller group."""

    kind: str
    size_bytes: float
    group: Group


def parts(kind: str, size_bytes: float, group: Group) -> tuple[Part, ...]:
    """The steps in order; none where it cannot be split: other collectives, uneven or single-rank domains."""
    local = group.ranks_per_domain
    if local == 1 or group.domains == 1 or group.ranks != local * group.domains:
        return ()
    inside = replace(
        group, ranks=local, domains=1, nodes=1, ranks_per_node=min(local, group.ranks_per_node), tier=-1
    )
    across = replace(group, ranks=group.domains, ranks_per_domain=1, ranks_per_node=1)
    gather, scatter = Part("all_gather", size_bytes, inside), Part("reduce_scatter", size_bytes, inside)
    share = Part(kind, size_bytes / local, across)
    steps = {
        "all_reduce": (scatter, share, gather),
        "all_gather": (share, gather),
        "reduce_scatter": (scatter, share),
    }
    return steps.get(kind, ())
