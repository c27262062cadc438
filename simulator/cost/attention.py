"""Fused (flash) attention, forward and backward.

One thread block computes 128 queries of one head against all the keys they may see (Dao 2023, FlashAttention-2,
section 3.2). The blocks' work is spread over the SMs; the longest block bounds what spreading can reach. Q, K, V and O
pass through memory once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

_QUERIES = 128  # per thread block


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCoefficients:
    """What is fitted of one kernel generation in one direction.

    ``efficiency``·D/(D + ``half_dim``) is the share of the dense peak at head dimension D. ``prologue_keys``: cost of
    starting a block, in keys. ``tail``: share of half the longest block that spreading leaves idle; ``lone``: time of
    the longest block alone, in shares of its time at the full rate. ``bandwidth``, ``kv_bandwidth``: shares of memory
    bandwidth for Q and O, and for K and V. ``throttle``: slow-down of a kernel much longer than ``throttle_s``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    efficiency: float
    half_dim: float = 0.0
    prologue_keys: float = 0.0
    tail: float = 0.0
    lone: float = 0.0
    bandwidth: float
    kv_bandwidth: float
    throttle: float = 0.0
    throttle_s: float = 1e-3
    fixed_s: float
    tiled: bool = True


def attention_seconds(
    *,
    heads: float,
    queries: float,
    pairs: float,
    keys: float,
    qk_head_dim: float,
    v_head_dim: float,
    matmuls: float,
    causal: bool,
    q_bytes: float,
    kv_bytes: float,
    peak: float,
    memory_bandwidth: float,
    sm_count: int,
    c: AttentionCoefficients,
) -> float:
    """Time of one attention core.

    ``heads``: heads times sequences; ``queries`` per sequence; ``pairs``: query-key pairs computed per head;
    ``keys``: the most keys one query sees; ``matmuls``: 2 forward, 5 backward.
    """
    diagonal = 0.5 * _QUERIES * queries if causal else 0.0
    return float(
        _formula(
            heads, queries, pairs, keys, (qk_head_dim + v_head_dim) / 2.0, matmuls, diagonal, q_bytes, kv_bytes,
            peak, memory_bandwidth, sm_count, c, max, math.ceil,
        )
    )  # fmt: skip


def attention_times(
    *,
    heads: npt.ArrayLike,
    queries: npt.ArrayLike,
    pairs: npt.ArrayLike,
    keys: npt.ArrayLike,
    head_dim: npt.ArrayLike,
    matmuls: npt.ArrayLike,
    causal: npt.ArrayLike,
    q_bytes: npt.ArrayLike,
    kv_bytes: npt.ArrayLike,
    peak: float,
    memory_bandwidth: float,
    sm_count: int,
    c: AttentionCoefficients,
) -> npt.NDArray[np.float64]:
    """The same over arrays; ``head_dim`` is the mean of the QK and V head dimensions."""
    diagonal = 0.5 * _QUERIES * np.asarray(queries) * np.asarray(causal)
    arrays = (np.asarray(x, dtype=np.float64) for x in (heads, queries, pairs, keys, head_dim, matmuls))
    traffic = (np.asarray(x, dtype=np.float64) for x in (q_bytes, kv_bytes))
    return np.asarray(
        _formula(*arrays, diagonal, *traffic, peak, memory_bandwidth, sm_count, c, np.maximum, np.ceil)
    )


def _formula(
    heads: Any,
    queries: Any,
    pairs: Any,
    keys: Any,
    head_dim: Any,
    matmuls: Any,
    diagonal: Any,
    q_bytes: Any,
    kv_bytes: Any,
    peak: float,
    memory_bandwidth: float,
    sm_count: int,
    c: AttentionCoefficients,
    maximum: Callable[[Any, Any], Any],
    ceil: Callable[[Any], Any],
) -> Any:
    """Floats or arrays, as ``maximum`` and ``ceil`` take them. A masked diagonal tile is computed whole."""
    pair_flops = 2.0 * matmuls * head_dim
    rate = c.efficiency * peak * head_dim / (head_dim + c.half_dim)
    memory = (q_bytes / c.bandwidth + kv_bytes / c.kv_bandwidth) / memory_bandwidth
    if not c.tiled:
        return maximum(heads * pairs * pair_flops / rate, memory) + c.fixed_s
    blocks = ceil(queries / _QUERIES)
    started = pairs + diagonal + blocks * _QUERIES * c.prologue_keys
    spread = heads * started * pair_flops / rate
    longest = (keys + c.prologue_keys) * _QUERIES * pair_flops * sm_count / rate
    time = maximum(spread + 0.5 * c.tail * longest, c.lone * longest) + memory
    return time * (1.0 + c.throttle * time / (time + c.throttle_s)) + c.fixed_s
