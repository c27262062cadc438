"""Dense and batched matrix products on tensor cores.

The model follows how libraries compute C[m, n] = A[m, k]·B[k, n]: C is cut into tiles, one tile occupies one SM, and
tiles run in waves. Each candidate tile, with or without splitting k over several SMs, has a time; the library takes
about the best one. Memory traffic runs beside it. (Tiles, waves and split-k: NVIDIA, "Matrix multiplication background
user's guide", sections 2 and 3.)

``gemm_seconds`` is one product in plain Python, ``gemm_times`` the same formula over arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

Array = npt.NDArray[np.float64]

# rows × columns of C; relative rates are coefficients by tile area
TILES = ((256, 128), (128, 256), (128, 128), (128, 64), (64, 128), (64, 64))
_FULL_TILE = 256 * 128
_MAX_SPLIT = 16  # ways to split k
_MIN_SPLIT_K = 256  # elements of k left to each part
_SPLIT_WAVES = 4.0  # k is split only while the tiles fill the device fewer times than this
_PARTIAL_BYTES = 8.0  # an fp32 partial result written and read again
_RAMP_BYTES = 10e6  # memory traffic at which half of ``ramp_s`` is paid
_BLOCK = 8192  # shapes per block of the vectorised form, so that temporaries stay in cache


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmCoefficients:
    """What is fitted of a device's GEMMs in one precision.

    ``efficiency``: share of the dense peak inside the main loop of the largest tile; ``half_tile``, ``quarter_tile``,
    ``eighth_tile``: the rate of tiles of that area relative to it. ``prologue_k``: cost of starting and storing a
    tile, in elements of k. ``wave``: share of wave quantisation that is paid (1: a started wave costs a whole one).
    ``bandwidth``: share of memory bandwidth; ``ramp_s``: extra time until it is reached. ``overlap``: exponent joining
    compute and memory time (large: perfect overlap). ``split_traffic``, ``split_s``: share of the partial results'
    traffic and fixed time that splitting k costs. ``throttle``: slow-down of a kernel much longer than
    ``throttle_s``, as clocks drop under sustained power. ``accumulate``: extra share of time when the result is added
    to an fp32 buffer. ``fixed_s``: time of an empty kernel. ``tiled`` False: a plain roofline without tiles.
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
    fixed_s: float
    accumulate: float = 0.0
    tiled: bool = True

    def tile_rate(self, rows: int, columns: int) -> float:
        """Share of the peak that a tile's main loop reaches."""
        by_area = {1: 1.0, 2: self.half_tile, 4: self.quarter_tile, 8: self.eighth_tile}
        return self.efficiency * by_area[_FULL_TILE // (rows * columns)]


def gemm_seconds(
    *,
    m: float,
    n: float,
    k: float,
    batch: float,
    traffic: float,
    peak: float,
    memory_bandwidth: float,
    sm_count: int,
    c: GemmCoefficients,
) -> float:
    """Time of ``batch`` products. ``traffic`` in bytes, ``peak`` in FLOP/s, ``memory_bandwidth`` in bytes/s."""
    if not c.tiled:
        compute = 2.0 * batch * m * n * k / (c.efficiency * peak)
        return max(compute, traffic / (c.bandwidth * memory_bandwidth)) + c.fixed_s
    bandwidth = c.bandwidth * memory_bandwidth
    split_cost = c.split_traffic * _PARTIAL_BYTES * batch * m * n / bandwidth
    most = max(1.0, min(_MAX_SPLIT, k // _MIN_SPLIT_K))
    compute = math.inf
    for rows, columns in TILES:
        per_k = 2.0 * rows * columns * sm_count / (c.tile_rate(rows, columns) * peak)
        tiles = batch * math.ceil(m / rows) * math.ceil(n / columns)
        time = _waves(tiles / sm_count, c.wave) * (k + c.prologue_k) * per_k
        compute = min(compute, time)
        if most > 1.0 and tiles <= _SPLIT_WAVES * sm_count:
            for split in {2.0, 4.0, sm_count // tiles, 2 * sm_count // tiles}:
                parts = min(split, most)
                if parts > 1.0:
                    waves = _waves(tiles * parts / sm_count, c.wave)
                    time = waves * (k / parts + c.prologue_k) * per_k + parts * split_cost + c.split_s
                    compute = min(compute, time)
    memory = traffic / bandwidth + c.ramp_s * traffic / (traffic + _RAMP_BYTES)
    longer, shorter = max(compute, memory), min(compute, memory)
    time = longer * (1.0 + (shorter / longer) ** c.overlap) ** (1.0 / c.overlap)
    return time * (1.0 + c.throttle * time / (time + c.throttle_s)) + c.fixed_s


def _waves(filled: float, quantised: float) -> float:
    """Waves that ``filled`` device fillings cost, between smooth (0) and whole waves (1)."""
    return quantised * math.ceil(filled) + (1.0 - quantised) * max(filled, 1.0)


def gemm_times(
    *,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    batch: npt.ArrayLike = 1.0,
    operand_bytes: float = 2.0,
    output_bytes: npt.ArrayLike = 2.0,
    peak: float,
    memory_bandwidth: float,
    sm_count: int,
    c: GemmCoefficients,
) -> Array:
    """Times of many products at once, in seconds. Sizes broadcast; ``output_bytes`` per element of the result (twice
    the element's size where the result is accumulated)."""
    sizes = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (m, n, k, batch, output_bytes)))
    flat = [np.ascontiguousarray(x).ravel() for x in sizes]
    times = np.empty(flat[0].shape)
    for start in range(0, times.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        times[part] = _times(*(x[part] for x in flat), operand_bytes, peak, memory_bandwidth, sm_count, c)
    return times.reshape(sizes[0].shape)


def _times(
    m: Array,
    n: Array,
    k: Array,
    batch: Array,
    output_bytes: Array,
    operand_bytes: float,
    peak: float,
    memory_bandwidth: float,
    sm_count: int,
    c: GemmCoefficients,
) -> Array:
    traffic = batch * (operand_bytes * k * (m + n) + output_bytes * m * n)
    bandwidth = c.bandwidth * memory_bandwidth
    if not c.tiled:
        roofline = np.maximum(2.0 * batch * m * n * k / (c.efficiency * peak), traffic / bandwidth)
        return np.asarray(roofline + c.fixed_s)
    compute = _compute_times(m, n, k, batch, bandwidth, peak, sm_count, c)
    memory = traffic / bandwidth + c.ramp_s * traffic / (traffic + _RAMP_BYTES)
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    time = longer * (1.0 + (shorter / longer) ** c.overlap) ** (1.0 / c.overlap)
    return np.asarray(time * (1.0 + c.throttle * time / (time + c.throttle_s)) + c.fixed_s)


def _compute_times(
    m: Array,
    n: Array,
    k: Array,
    batch: Array,
    bandwidth: float,
    peak: float,
    sm_count: int,
    c: GemmCoefficients,
) -> Array:
    """The best tile's time on the SMs."""
    smooth = 1.0 - c.wave
    best = np.full(m.shape, np.inf)
    split_cost = c.split_traffic * _PARTIAL_BYTES / bandwidth * batch * m * n
    most = np.clip(np.floor(k / _MIN_SPLIT_K), 1.0, _MAX_SPLIT)
    for rows, columns in TILES:
        per_k = 2.0 * rows * columns * sm_count / (c.tile_rate(rows, columns) * peak)
        tiles = batch * np.ceil(m / rows) * np.ceil(n / columns)
        filled = tiles / sm_count
        waves = c.wave * np.ceil(filled) + smooth * np.maximum(filled, 1.0)
        np.minimum(best, waves * (k + c.prologue_k) * per_k, out=best)
        few = np.flatnonzero((filled <= _SPLIT_WAVES) & (most > 1.0))
        if few.size:
            tiles, k_few, most_few, cost, least = tiles[few], k[few], most[few], split_cost[few], best[few]
            for split in (2.0, 4.0, np.floor(sm_count / tiles), np.floor(2 * sm_count / tiles)):
                parts = np.maximum(np.minimum(split, most_few), 1.0)
                filled = tiles * parts / sm_count
                waves = c.wave * np.ceil(filled) + smooth * np.maximum(filled, 1.0)
                time = waves * (k_few / parts + c.prologue_k) * per_k + parts * cost + c.split_s
                np.minimum(least, time, out=least)
            best[few] = least
    return best
