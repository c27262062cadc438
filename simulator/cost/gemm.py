"""Dense and batched matrix products on tensor cores.

The model follows how libraries compute C[m, n] = A[m, k]·B[k, n]: C is cut into tiles, one tile occupies
one SM, and tiles run in waves. Each candidate tile, with or without splitting k over several SMs, has a
time; the library takes about the best one. Memory traffic runs beside it. (Tiles, waves and split-k:
NVIDIA, "Matrix multiplication background user's guide", sections 2 and 3.)

``gemm_seconds`` is one product in plain Python, ``gemm_times`` the same formula over arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from simulator.cost.rates import Rates

Array = npt.NDArray[np.float64]

Tiles: TypeAlias = Sequence[tuple[int, int]]

# rows × columns of C; relative rates are coefficients by tile area
TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64))
_FULL_TILE = 256 * 128
_MAX_SPLIT = 16  # ways to split k
_MIN_SPLIT_K = 256  # elements of k left to each part
_SPLIT_WAVES = 4.0  # k is split only while the tiles fill the device fewer times than this
_PARTIAL_BYTES = 8.0  # an fp32 partial result written and read again
_RAMP_BYTES = 10e6  # memory traffic at which half of ``ramp_s`` is paid
ALIGNED = 16  # elements
_BLOCK = 8192  # shapes per block of the vectorised form, so that temporaries stay in cache


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmCoefficients:
    """What is fitted of a device's GEMMs in one precision.

    ``efficiency``: share of the dense peak inside the main loop of the largest tile; ``half_tile``,
    ``quarter_tile``, ``eighth_tile``: the rate of tiles of that area relative to it. ``prologue_k``:
    cost of starting and storing a tile, in elements of k. ``wave``: share of wave quantisation that is
    paid (1: a started wave costs a whole one). ``bandwidth``: share of memory bandwidth; ``ramp_s``:
    extra time until it is reached. ``overlap``: exponent joining compute and memory time (large:
    perfect overlap). ``split_traffic``, ``split_s``: share of the partial results' traffic and fixed
    time that splitting k costs. ``throttle``: slow-down of a kernel much longer than ``throttle_s``, as
    clocks drop under sustained power. ``unaligned``: rate where k is no multiple of 16, so that rows of the
    operands begin anywhere and loads are narrow, relative to the rate elsewhere. ``accumulate``: extra share
    of time when the result is added to an fp32 buffer. ``fixed_s``: time of an empty kernel. ``tiled`` False:
    a plain roofline without tiles.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    efficiency: float
    half_tile: float = 1.0
    quarter_tile: float = 1.0
    eighth_tile: float = 1.0
    prologue_k: float = 0.0
    wave: float = 0.0
    bandwidth: float
    ramp_s: float = 0.0
    overlap: float = 16.0
    split_traffic: float = 1.0
    split_s: float = 0.0
    throttle: float = 0.0
    throttle_s: float = 1e-3
    unaligned: float = 1.0
    fixed_s: float
    accumulate: float = 0.0
    tiled: bool = True

    def tile_rate(self, rows: int, columns: int) -> float:
        """Share of the peak that a tile's main loop reaches."""
        by_area = {1: 1.0, 2: self.half_tile, 4: self.quarter_tile, 8: self.eighth_tile}
        return self.efficiency * by_area[_FULL_TILE // (rows * columns)]


def gemm_seconds(
    *, m: float, n: float, k: float, batch: float, traffic: float, rates: Rates, c: GemmCoefficients
) -> float:
    """Time of ``batch`` products in seconds; ``traffic`` is their memory traffic in bytes."""
    peak, memory_bandwidth, sm_count = rates
    bandwidth = c.bandwidth * memory_bandwidth
    if not c.tiled:
        return max(2.0 * batch * m * n * k / (c.efficiency * peak), traffic / bandwidth) + c.fixed_s
    split_cost = c.split_traffic * _PARTIAL_BYTES * batch * m * n / bandwidth
    most = max(1.0, min(_MAX_SPLIT, k / _MIN_SPLIT_K))
    compute = math.inf
    for rows, columns in TILES:
        per_k = 2.0 * rows * columns * sm_count / (c.tile_rate(rows, columns) * peak)
        tiles = batch * math.ceil(m / rows) * math.ceil(n / columns)
        waves = _waves(tiles / sm_count, c.wave)
        compute = min(compute, waves * (k + c.prologue_k) * per_k)
        if most > 1.0 and tiles <= _SPLIT_WAVES * sm_count:
            for split in {2.0, 4.0, sm_count // tiles, 2 * sm_count // tiles}:
                parts = min(split, most)
                if parts > 1.0:
                    waves = _waves(tiles * parts / sm_count, c.wave)
                    part = waves * (k / parts + c.prologue_k) * per_k
                    compute = min(compute, part + parts * split_cost + c.split_s)
    compute /= c.unaligned if k % ALIGNED else 1.0
    memory = traffic / bandwidth + c.ramp_s * traffic / (traffic + _RAMP_BYTES)
    longer, shorter = max(compute, memory), min(compute, memory)
    time: float = longer * (1.0 + (shorter / longer) ** c.overlap) ** (1.0 / c.overlap)
    return time * (1.0 + c.throttle * time / (time + c.throttle_s)) + c.fixed_s


def _waves(filled: float, quantised: float) -> float:
    """Waves that ``filled`` device fillings cost, between smooth (0) and whole waves (1)."""
    return quantised * math.ceil(filled) + (1.0 - quantised) * max(filled, 1.0)


class Products(NamedTuple):
    """Many products: sizes as arrays of one length."""

    m: Array
    n: Array
    k: Array
    batch: Array
    traffic: Array  # bytes

    @classmethod
    def of(
        cls,
        *,
        m: npt.ArrayLike,
        n: npt.ArrayLike,
        k: npt.ArrayLike,
        batch: npt.ArrayLike = 1.0,
        operand_bytes: npt.ArrayLike = 2.0,
        output_bytes: npt.ArrayLike = 2.0,
    ) -> Products:
        """Sizes broadcast against each other; bytes per element, the result's twice where it is
        accumulated."""
        given = (np.asarray(x, dtype=np.float64) for x in (m, n, k, batch, operand_bytes, output_bytes))
        rows, columns, inner, count, operand, output = (
            np.ascontiguousarray(x).ravel() for x in np.broadcast_arrays(*given)
        )
        traffic = count * (operand * inner * (rows + columns) + output * rows * columns)
        return cls(rows, columns, inner, count, traffic)


def gemm_times(products: Products, rates: Rates, c: GemmCoefficients, tiles: Tiles = TILES) -> Array:
    """The times of many products, in seconds; ``tiles``: those that the library has to choose from."""
    times = np.empty(products.m.shape)
    for start in range(0, times.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        times[part] = _times(Products(*(x[part] for x in products)), rates, c, tiles)
    return times


def _times(products: Products, rates: Rates, c: GemmCoefficients, tiles: Tiles) -> Array:
    m, n, k, batch, traffic = products
    bandwidth = c.bandwidth * rates.memory_bandwidth
    if not c.tiled:
        roofline = np.maximum(2.0 * batch * m * n * k / (c.efficiency * rates.peak), traffic / bandwidth)
        return np.asarray(roofline + c.fixed_s)
    compute = _compute_times(products, rates, c, tiles)
    if c.unaligned != 1.0:
        compute = np.where(k % ALIGNED > 0, compute / c.unaligned, compute)
    memory = traffic / bandwidth + c.ramp_s * traffic / (traffic + _RAMP_BYTES)
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    time = longer * (1.0 + (shorter / longer) ** c.overlap) ** (1.0 / c.overlap)
    return np.asarray(time * (1.0 + c.throttle * time / (time + c.throttle_s)) + c.fixed_s)


def _compute_times(products: Products, rates: Rates, c: GemmCoefficients, candidates: Tiles) -> Array:
    """The best tile's time on the SMs, with or without splitting k."""
    m, n, k, batch, _ = products
    peak, memory_bandwidth, sm_count = rates
    best = np.full(m.shape, np.inf)
    split_cost = c.split_traffic * _PARTIAL_BYTES / (c.bandwidth * memory_bandwidth) * batch * m * n
    most = np.clip(k / _MIN_SPLIT_K, 1.0, _MAX_SPLIT)
    for rows, columns in candidates:
        per_k = 2.0 * rows * columns * sm_count / (c.tile_rate(rows, columns) * peak)
        tiles = batch * np.ceil(m / rows) * np.ceil(n / columns)
        np.minimum(best, _wave_array(tiles / sm_count, c.wave) * (k + c.prologue_k) * per_k, out=best)
        few = np.flatnonzero((tiles <= _SPLIT_WAVES * sm_count) & (most > 1.0))
        if few.size:
            tiles, k_few, most_few, cost, least = tiles[few], k[few], most[few], split_cost[few], best[few]
            for split in (2.0, 4.0, np.floor(sm_count / tiles), np.floor(2 * sm_count / tiles)):
                parts = np.maximum(np.minimum(split, most_few), 1.0)
                waves = _wave_array(tiles * parts / sm_count, c.wave)
                time = waves * (k_few / parts + c.prologue_k) * per_k + parts * cost + c.split_s
                np.minimum(least, time, out=least)
            best[few] = least
    return best


def _wave_array(filled: Array, quantised: float) -> Array:
    return np.asarray(quantised * np.ceil(filled) + (1.0 - quantised) * np.maximum(filled, 1.0))
