"""Measurements that time more than one kernel, taken apart into the kernels of the cost models.

Low-precision GEMM rows include quantising the activations; MoE rows are a whole expert layer. The same sums
serve fitting (with trial coefficients) and checking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.readers import Table
from calibration.triton import DEFAULT, TUNED, is_triton, is_tuned
from simulator.cost.attention import Core
from simulator.cost.gemm import ALIGNED, GemmCoefficients, Products, gemm_times
from simulator.cost.memory_bound import MemoryCoefficients
from simulator.cost.rates import Rates

Array = npt.NDArray[np.float64]

OPERAND_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "mxfp8": 1.0, "nvfp4": 0.5}
# written by quantising one element: the value and its share of a block's scale (fp32 per 128, e4m3 per 16)
QUANTISED_BYTES = {"fp8": 1.0, "fp8_block": 1.0 + 4.0 / 128, "mxfp8": 1.0 + 1.0 / 32, "nvfp4": 0.5 + 1.0 / 16}
BLOCKWISE = {"fp8_block"}  # activations scaled in blocks of 1 × 128 by a kernel of its own
QUANTISED_BEFORE = ("infersim",)  # sources that time the product alone
SENT_WHOLE = ("aic-sglang-0.5.10",)  # sources of expert layers whose tokens have all their experts on a rank
PER_TENSOR = {"fp8"}  # the scale is the tensor's maximum: found by a pass of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The memory-bound kernels inside composed measurements, on one device.

    ``kinds`` has ``quantize`` (static cast), ``quantize_block``, ``amax`` (a tensor's maximum),
    ``permute`` and ``activation``.
    """

    kinds: Mapping[str, MemoryCoefficients]
    memory_bandwidth: float  # bytes/s
    l2_bytes: float

    def permute(self, dtype: str) -> str:
        """The kind that permutes tokens of a precision."""
        own = f"permute_{dtype}"
        return own if own in self.kinds else "permute"

    def times(self, kind: str, traffic: npt.ArrayLike, kernels: float = 1.0, *, warm: bool = False) -> Array:
        """Times of kernels of one kind; ``warm`` when they were repeated on the same tensor."""
        return stream_times(
            np.asarray(traffic),
            kernels,
            self.memory_bandwidth,
            self.kinds[kind],
            self.l2_bytes if warm else 0.0,
        )


def stream_times(
    traffic: Array,
    kernels: npt.ArrayLike,
    memory_bandwidth: float,
    c: MemoryCoefficients,
    l2_bytes: float = 0.0,
) -> Array:
    """Times of memory-bound kernels: the vector form of ``memory_bound_seconds``.

    Repeated on one tensor (``l2_bytes`` more than 0), traffic that half the L2 cache holds is served
    from there; none is where it fills the cache.
    """
    seconds = traffic / (c.bandwidth * memory_bandwidth)
    if l2_bytes and c.warm > 1.0:
        hits = np.clip(2.0 * (1.0 - traffic / l2_bytes), 0.0, 1.0)
        seconds = seconds / (1.0 + (c.warm - 1.0) * hits)
    return np.asarray(np.asarray(kernels) * c.fixed_s + seconds)


def quantise_times(elements: Array, dtype: str, streams: Streams, *, per_tensor: bool) -> Array:
    """Quantising bf16 activations, as benchmarks repeat it; a per-tensor scale reads them once more."""
    kind = "quantize_block" if dtype in BLOCKWISE else "quantize"
    cast = streams.times(kind, (2.0 + QUANTISED_BYTES[dtype]) * elements, warm=True)
    return cast + streams.times("amax", 2.0 * elements, warm=True) if per_tensor else cast


def gemm_row_times(table: Table, dtype: str, rates: Rates, c: GemmCoefficients, streams: Streams) -> Array:
    """What the rows of a GEMM table measure: the product, and quantising A[m, k] in low precision."""
    m, n, k = table["m"], table["n"], table["k"]
    products = Products.of(m=m, n=n, k=k, operand_bytes=OPERAND_BYTES[dtype])
    times = gemm_times(products, rates, c)
    net = np.isin(table.source, QUANTISED_BEFORE)
    if dtype not in QUANTISED_BYTES or net.all():
        return times
    # the sglang fp8 linear scales each token: one pass
    by_token = np.char.startswith(table.columns.get("kernel", np.full(len(table), "")), "sglang_sgl_kernel")
    once = quantise_times(m * k, dtype, streams, per_tensor=False)
    if dtype not in PER_TENSOR:
        return times + np.where(net, 0.0, once)
    twice = quantise_times(m * k, dtype, streams, per_tensor=True)
    return times + np.where(net, 0.0, np.where(by_token, once, twice))


def moe_row_times(
    table: Table, dtype: str, rates: Rates, c: GemmCoefficients, streams: Streams, *, variant: str = ""
) -> Array:
    """A balanced expert layer on one rank: permute, up (and gate) GEMM, activation, down GEMM, unpermute.

    Its ``permute`` also covers sorting the tokens. Quantised layers write their activations in low precision.
    """
    hidden, width = table["hidden_size"], table["inter_size"] / table["moe_tp_size"]
    ranks = table["moe_ep_size"]
    tokens = _tokens_of_a_rank(table)
    rows = tokens * table["topk"]
    groups = np.maximum(1.0, np.minimum(table["num_experts"] / ranks, rows))
    per_group = np.maximum(1.0, rows / groups)
    up = np.where(
        np.char.endswith(table["kernel"], "nongated"), 1.0, 2.0
    )  # gated layers compute two matrices
    written = QUANTISED_BYTES.get(dtype, 2.0)
    first = Products.of(m=per_group, n=up * width, k=hidden, batch=groups, operand_bytes=OPERAND_BYTES[dtype])
    second = Products.of(m=per_group, n=hidden, k=width, batch=groups, operand_bytes=OPERAND_BYTES[dtype])
    gathered = np.where(is_triton(table), 0.0, rows * hidden * (2.0 + written))  # Triton's product gathers
    permute = gathered + rows * hidden * 2.0 + tokens * hidden * 2.0
    activation = rows * width * (2.0 * up + written)
    return (
        _grouped_times(table, first, rates, c)
        + _grouped_times(table, second, rates, c)
        + streams.times(streams.permute(dtype + variant), permute, 2.0)
        + streams.times("activation", activation)
    )


def _tokens_of_a_rank(table: Table) -> Array:
    """Tokens that a rank computes all experts of.

    Balanced routing spreads the experts of a token over the ranks: as many rows as those of ``1 / ranks`` of
    the tokens. A benchmark in ``SENT_WHOLE`` sends whole tokens: every one that has an expert on the rank (of
    ``topk`` that lie on different ranks) has all of them there, as the times of its rows say.
    """
    share = 1.0 / table["moe_ep_size"]
    whole = np.isin(table.source, SENT_WHOLE)
    return np.asarray(table["num_tokens"] * np.where(whole, np.minimum(1.0, table["topk"] * share), share))


def _grouped_times(table: Table, products: Products, rates: Rates, c: GemmCoefficients) -> Array:
    """Products of expert layers, in whatever tiles the row's kernel has."""
    times = np.empty(len(table))
    triton, tuned = is_triton(table), is_tuned(table)
    for chosen, blocks in ((triton & tuned, TUNED), (triton & ~tuned, DEFAULT), (~triton, None)):
        some = Products(*(sizes[chosen] for sizes in products))
        if blocks:
            padded = some._replace(k=np.where(some.k % ALIGNED > 0, some.k, blocks.padded(some.k)))
            times[chosen] = gemm_times(padded, rates, c, blocks.tiles)
        else:
            times[chosen] = gemm_times(some, rates, c)
    return times


def attention_cores(table: Table) -> Core:
    """The cores of an attention table, inference or training."""
    heads, kv_heads, queries = table["heads"], table["kv_heads"], table["seq"]
    training = "qk_head_dim" in table.columns
    qk = table["qk_head_dim"] if training else table["head_dim"]
    v = table["v_head_dim"] if training else table["head_dim"]
    causal, batch = table["causal"], table["batch"]
    window = table.columns.get("window", np.zeros(len(table)))
    keys = np.where(window > 0, np.minimum(window, queries), queries)
    pairs = np.where(causal > 0, queries * keys - keys * keys / 2.0, queries * queries)
    backward = table["direction"] == "bwd"
    element = np.where(backward, 5.0, 2.0)  # bytes; backward also moves the gradients
    kv_element = element.copy()
    if "kv_dtype" in table.columns:
        kv_element = np.where(table["kv_dtype"] == "fp8", 0.5 * element, element)
    return Core(
        heads=batch * heads,
        queries=queries,
        pairs=pairs,
        keys=keys,
        head_dim=(qk + v) / 2.0,
        mixed=np.where(qk != v, 1.0, 0.0),
        matmuls=np.where(backward, 5.0, 2.0),
        causal=np.where(causal > 0, 1.0, 0.0),
        q_bytes=element * batch * queries * heads * (qk + v),
        kv_bytes=kv_element * batch * queries * kv_heads * (qk + v),
    )
