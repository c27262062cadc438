"""How many rows the ranks of an expert-parallel group get."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulator.spec.expert_load import ExpertLoad


class Load(NamedTuple):
    """Rows per expert rank over those of a balanced, dropless router: on average, and on the fullest rank."""

    mean: float = 1.0
    peak: float = 1.0


def router_load(asked: ExpertLoad, ranks: int, experts: int, *, seed: tuple[int, int]) -> Load:
    """The load of an EP group of ``ranks``.

    With a given imbalance the fullest rank's experts share its load evenly, and the other ranks the rest.
    Drawn popularities follow a gamma distribution of the asked coefficient of variation (for all experts
    together a Dirichlet distribution). An expert takes rows up to its capacity; padding fills it to exactly
    that.

    Args:
        asked: the run's ``training.moe``.
        ranks: EP ranks, which hold equally many experts.
        experts: routed experts of the layer.
        seed: of the run, and the layer.
    """
    if asked.capacity_factor and asked.pad_to_capacity:
        return Load(asked.capacity_factor, asked.capacity_factor)
    capacity = asked.capacity_factor or float("inf")
    if asked.variation:
        shape = 1.0 / asked.variation**2
        drawn = np.random.default_rng(seed).gamma(shape, size=experts)
        kept = np.minimum(drawn / drawn.mean(), capacity).reshape(ranks, -1).mean(axis=1)
        return Load(float(kept.mean()), float(kept.max()))
    peak = min(asked.imbalance, capacity)
    rest = min((ranks - asked.imbalance) / (ranks - 1), capacity) if ranks > 1 else peak
    return Load((peak + (ranks - 1) * rest) / ranks, peak)
