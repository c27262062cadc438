"""Fused (flash) attention, forward and backward.

One thread block computes 128 queries of one head against all the keys they may see (Dao 2023,
FlashAttention-2, section 3.2). The blocks' work is spread over the SMs; the longest block bounds what
spreading can reach. Q, K, V and O pass through memory once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from simulator.cost.rates import Rates

_QUERIES = 128  # per thread block


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCoefficients:
    """What is fitted of one kernel generation in one direction.

    ``efficiency``·D/(D + ``half_dim``) is the share of the dense peak at head dimension D, times
    ``mixed_dims`` where the head dimensions of QK and V differ (MLA). ``prologue_keys``: cost of
    starting a block, in keys. ``tail``: share of half the longest block that spreading leaves idle;
    ``lone``: time of the longest block alone, in shares of its time at the full rate. ``bandwidth``,
    ``kv_bandwidth``: shares of memory bandwidth for Q and O, and for K and V. ``throttle``: slow-down
    of a kernel much longer than ``throttle_s``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    efficiency: float
    half_dim: float = 0.0
    mixed_dims: float = 1.0
    prologue_keys: float = 0.0
    tail: float = 0.0
    lone: float = 0.0
    bandwidth: float
    kv_bandwidth: float
    throttle: float = 0.0
    throttle_s: float = 1e-3
    fixed_s: float
    tiled: bool = True


class Core(NamedTuple):
    """One attention core, or many as arrays.

    ``heads``: heads times sequences; ``queries`` per sequence; ``pairs``: query-key pairs computed per
    head; ``keys``: the most keys one query sees; ``head_dim``: mean of the QK and V head dimensions;
    ``mixed``: 1 where the two differ, else 0; ``matmuls``: 2 forward, 5 backward; ``causal``: 1 where
    masked tiles lie on the diagonal, else 0; ``q_bytes``, ``kv_bytes``: traffic of Q and O, and of K
    and V.
    """

    heads: Any
    queries: Any
    pairs: Any
    keys: Any
    head_dim: Any
    mixed: Any
    matmuls: Any
    causal: Any
    q_bytes: Any
    kv_bytes: Any


def attention_seconds(core: Core, rates: Rates, c: AttentionCoefficients) -> float:
    """Time of one attention core, in seconds."""
    return float(_formula(core, rates, c, max, math.ceil))


def attention_times(core: Core, rates: Rates, c: AttentionCoefficients) -> npt.NDArray[np.float64]:
    """The times of many, in seconds."""
    return np.asarray(_formula(core, rates, c, np.maximum, np.ceil))


def _formula(
    core: Core,
    rates: Rates,
    c: AttentionCoefficients,
    maximum: Callable[[Any, Any], Any],
    ceil: Callable[[Any], Any],
) -> Any:
    """On floats or arrays, as ``maximum`` and ``ceil`` take them."""
    pair_flops = 2.0 * core.matmuls * core.head_dim
    rate = c.efficiency * rates.peak * core.head_dim / (core.head_dim + c.half_dim)
    rate = rate * (1.0 - core.mixed * (1.0 - c.mixed_dims))
    memory = (core.q_bytes / c.bandwidth + core.kv_bytes / c.kv_bandwidth) / rates.memory_bandwidth
    if not c.tiled:
        return maximum(core.heads * core.pairs * pair_flops / rate, memory) + c.fixed_s
    blocks = ceil(core.queries / _QUERIES)
    masked = 0.5 * _QUERIES * core.queries * core.causal  # a tile on the diagonal is computed whole
    started = core.pairs + masked + blocks * _QUERIES * c.prologue_keys
    spread = core.heads * started * pair_flops / rate
    longest = (core.keys + c.prologue_keys) * _QUERIES * pair_flops * rates.sm_count / rate
    time = maximum(spread + 0.5 * c.tail * longest, c.lone * longest) + memory
    return time * (1.0 + c.throttle * time / (time + c.throttle_s)) + c.fixed_s
