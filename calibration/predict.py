"""Predicting the rows of a measurement table with a device's kernel model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.compose import (
    OPERAND_BYTES,
    Streams,
    attention_cores,
    gemm_row_times,
    moe_row_times,
    stream_times,
)
from calibration.fit.site import training_gemm_times, training_grouped_times
from calibration.readers import Table
from simulator.cost.attention import attention_times
from simulator.cost.kernels import Kernels
from simulator.cost.profile import AttentionKernel
from simulator.spec.cluster import DeviceSpec
from simulator.spec.errors import SpecError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# names in ``kernel`` columns -> generation in a profile; first match wins, "" says why there is none
_GENERATIONS = (
    ("decode", ""),
    ("triton", ""),
    ("fa3", "flash3"),
    ("v3", "flash3"),
    ("fa4", "trtllm"),
    ("torch_flow", "trtllm"),
    ("trtllm", "trtllm"),
    ("flash_att", "flash2"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Rows of one class and precision, predicted."""

    kernel_class: str
    dtype: str
    rows: Table
    seconds: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmapped:
    """Rows without a prediction, and why."""

    rows: Table
    reason: str


def predict(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    """Every row of a table once, either predicted or with the reason why not."""
    yield from _foreign(table, kernels.device)
    mine = own_rows(table, kernels.device)
    if len(mine):
        yield from _KINDS[table.kind](mine, kernels)


def streams_of(kernels: Kernels) -> Streams:
    """The memory-bound kernels of a profile, for composed measurements."""
    fitted = kernels.profile.memory_bound
    kinds = {kind: fit.coefficients for kind, fit in fitted.items()}
    for kind, stand_in in (
        ("quantize", "default"),
        ("amax", "quantize"),
        ("quantize_block", "quantize"),
        ("permute", "default"),
        ("activation", "default"),
    ):
        kinds.setdefault(kind, kinds[stand_in])
    device = kernels.device
    return Streams(kinds=kinds, memory_bandwidth=device.memory_bandwidth, l2_bytes=device.l2_bytes)


def own_rows(table: Table, device: DeviceSpec) -> Table:
    """The rows of a device, where a column names one; all of them otherwise."""
    if "gpu" not in table.columns:
        return table
    mine = [gpu for gpu in np.unique(table["gpu"]) if _is(str(gpu), device)]
    return table.where(np.isin(table["gpu"], mine))


def _foreign(table: Table, device: DeviceSpec) -> Iterator[Unmapped]:
    if "gpu" in table.columns:
        for gpu in np.unique(table["gpu"]):
            if not _is(str(gpu), device):
                rows = table.where(table["gpu"] == gpu)
                yield Unmapped(rows=rows, reason=f"measured on {gpu}, not on {device.name}")


def _is(gpu: str, device: DeviceSpec) -> bool:
    """Whether a table's name of a GPU, or the driver's such as NVIDIA H100 80GB HBM3, means a device."""
    name = gpu.lower().replace("_", "-")
    if name in device.aliases or device.name.startswith(name):
        return True
    words, own = set(re.split(r"[\s-]+", name)), set(device.name.split("-"))
    sizes = [{word for word in said if re.fullmatch(r"\d+gb", word)} for said in (words, own)]
    same_size = not all(sizes) or sizes[0] == sizes[1]
    return device.name.split("-")[0] in words and ("pcie" in words) == ("pcie" in own) and same_size


def _by_dtype(table: Table, kernels: Kernels, known: set[str]) -> Iterator[tuple[str, Table] | Unmapped]:
    for dtype in map(str, np.unique(table["dtype"])):
        rows = table.where(table["dtype"] == dtype)
        if dtype not in known:
            yield Unmapped(rows=rows, reason=f"{dtype} GEMMs are not modelled")
            continue
        try:
            kernels.peak(dtype)
            kernels.gemm_fit(dtype)
        except SpecError as error:
            yield Unmapped(rows=rows, reason=str(error))
            continue
        yield dtype, rows


def _each_dtype(
    kernel_class: str,
    parts: Iterator[tuple[str, Table] | Unmapped],
    times: Callable[[Table, str], Array],
) -> Iterator[Predicted | Unmapped]:
    for found in parts:
        if isinstance(found, Unmapped):
            yield found
            continue
        dtype, rows = found
        yield Predicted(kernel_class=kernel_class, dtype=dtype, rows=rows, seconds=times(rows, dtype))


def _gemm(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    streams = streams_of(kernels)

    def times(rows: Table, dtype: str) -> Array:
        fit = kernels.gemm_fit(dtype)
        return gemm_row_times(rows, dtype, kernels.rates(dtype, fit.sustained), fit.coefficients, streams)

    return _each_dtype("gemm", _by_dtype(table, kernels, set(OPERAND_BYTES)), times)


def _gemm_training(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    def times(rows: Table, dtype: str) -> Array:
        fit = kernels.gemm_fit(dtype)
        return training_gemm_times(rows, kernels.rates(dtype, fit.sustained), fit.coefficients)

    return _each_dtype("gemm_training", _by_dtype(table, kernels, set(OPERAND_BYTES)), times)


def _grouped_training(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    def times(rows: Table, dtype: str) -> Array:
        fit = kernels.grouped_gemm_fit(dtype)
        return training_grouped_times(rows, kernels.rates(dtype, fit.sustained), fit.coefficients)

    return _each_dtype("grouped_gemm_training", _by_dtype(table, kernels, {"bf16", "fp16"}), times)


def _attention(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    narrow = table["dtype"] == "fp8"
    if narrow.any():
        yield Unmapped(
            rows=table.where(narrow), reason="fp8 attention is not modelled; training keeps its core in bf16"
        )
    table = table.where(~narrow)
    names = table.columns.get("kernel", np.full(len(table), "default"))
    for name in map(str, np.unique(names)):
        rows = table.where(names == name)
        generation = next(
            (wanted for word, wanted in _GENERATIONS if word in name), kernels.profile.default_attention
        )
        if not generation:
            yield Unmapped(rows=rows, reason=f"{name} is no kernel that training uses")
            continue
        available = kernels.profile.attention
        kernel = available.get(generation) or next(iter(available.values()))
        yield from _attention_rows(rows, kernel, kernels)


def _attention_rows(table: Table, kernel: AttentionKernel, kernels: Kernels) -> Iterator[Predicted]:
    cache = table.columns.get("kv_dtype", table["dtype"])
    for direction, fit in (("fwd", kernel.forward), ("bwd", kernel.backward)):
        for kept in map(str, np.unique(cache)):
            rows = table.where((table["direction"] == direction) & (cache == kept))
            for dtype in map(str, np.unique(rows["dtype"])):
                chosen = rows.where(rows["dtype"] == dtype)
                rates = kernels.rates(dtype, fit.sustained)
                seconds = attention_times(attention_cores(chosen), rates, fit.coefficients)
                name = "attention" if direction == "fwd" else "attention_backward"
                shown = {dtype: dtype, "none": f"{dtype} non-causal"}.get(kept, f"{dtype} with {kept} cache")
                yield Predicted(kernel_class=name, dtype=shown, rows=chosen, seconds=seconds)


def _moe(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    uneven = table["distribution"] != "balanced"
    if uneven.any():
        yield Unmapped(
            rows=table.where(uneven),
            reason="uneven routing: the rows of the loaded rank are not in the table",
        )
    table = table.where(~uneven)
    small = np.char.endswith(table["kernel"], "min_latency")
    if small.any():
        yield Unmapped(rows=table.where(small), reason="min_latency kernels serve single tokens")
    streams = streams_of(kernels)
    for found in _by_dtype(table.where(~small), kernels, set(OPERAND_BYTES)):
        if isinstance(found, Unmapped):
            yield found
            continue
        dtype, every = found
        triton = np.char.endswith(every["kernel"], "triton")
        for variant, rows in (("+triton", every.where(triton)), ("", every.where(~triton))):
            if not len(rows):
                continue
            key = dtype + variant
            fit = kernels.profile.grouped_gemm.get(key) or kernels.grouped_gemm_fit(dtype)
            rates = kernels.rates(dtype, fit.sustained)
            seconds = moe_row_times(rows, dtype, rates, fit.coefficients, streams, variant=variant)
            yield Predicted(kernel_class="moe", dtype=dtype, rows=rows, seconds=seconds)


def _quantize(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    streams = streams_of(kernels)
    elements = table["m"] * table["k"]
    for op, kind, size in (("scale_matrix", "quantize", 3.0), ("computescale", "amax", 2.0)):
        chosen = table["op"] == op
        rows = table.where(chosen)
        seconds = streams.times(kind, size * elements[chosen], warm=True)
        for dtype in map(str, np.unique(rows["quant_dtype"])):
            of_dtype = rows["quant_dtype"] == dtype
            yield Predicted(
                kernel_class=kind, dtype=dtype, rows=rows.where(of_dtype), seconds=seconds[of_dtype]
            )
    other = ~np.isin(table["op"], ("scale_matrix", "computescale"))
    if other.any():
        yield Unmapped(
            rows=table.where(other), reason="an operation other than scale_matrix and computescale"
        )


def _memory_bound(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    fitted = kernels.profile.memory_bound
    for kind in map(str, np.unique(table["kind"])):
        rows = table.where(table["kind"] == kind)
        c = (fitted.get(kind) or fitted["default"]).coefficients
        traffic = rows["read_bytes"] + rows["write_bytes"]
        seconds = stream_times(traffic, rows["kernels"], kernels.device.memory_bandwidth, c)
        yield Predicted(kernel_class=kind, dtype="", rows=rows, seconds=seconds)


def _not_here(table: Table, kernels: Kernels) -> Iterator[Predicted | Unmapped]:
    yield Unmapped(rows=table, reason=f"{table.kind} tables are not checked against kernels")


_KINDS = {
    "gemm": _gemm,
    "gemm_training": _gemm_training,
    "grouped_gemm_training": _grouped_training,
    "attention": _attention,
    "attention_training": _attention,
    "moe": _moe,
    "quantize": _quantize,
    "memory_bound": _memory_bound,
    "copy": _not_here,
    "collective": _not_here,
}
