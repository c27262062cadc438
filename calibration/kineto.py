"""Kernel durations from a PyTorch profiler (Kineto) trace, as rows of a training GEMM table.

Matrix products only: the trace must have been recorded with ``record_shapes=True``, which puts the sizes of
an operator's inputs on its CPU event; the kernels it launched carry the same external id.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.spec.errors import Problem, SpecError

_DTYPES = {"c10::BFloat16": "bf16", "c10::Half": "fp16", "float": "fp32", "c10::Float8_e4m3fn": "fp8"}
_INPUTS = {"aten::mm": (0, 1), "aten::bmm": (0, 1), "aten::addmm": (1, 2), "aten::baddbmm": (1, 2)}
COLUMNS = (
    "gpu",
    "dtype",
    "b",
    "m",
    "n",
    "k",
    "layout",
    "accumulate",
    "out_dtype",
    "time_us",
    "kernel",
    "source",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedGemm:
    """One product and the time of its kernels."""

    dtype: str
    batch: int
    m: int
    n: int
    k: int
    microseconds: float
    kernel: str

    def row(self, gpu: str, source: str) -> list[object]:
        """Cells in the order of ``COLUMNS``. The trace does not tell the layout."""
        shape = [self.batch, self.m, self.n, self.k]
        return [gpu, self.dtype, *shape, "", False, self.dtype, self.microseconds, self.kernel, source]


def read_trace(path: str | Path) -> list[TracedGemm]:
    """The matrix products of a trace (``.json`` or ``.json.gz``). Raises SpecError where it is none."""
    path = Path(path)
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        events = json.loads(text)["traceEvents"]
    except json.JSONDecodeError as error:
        problem = Problem(file=str(path), line=error.lineno, rule=f"is not JSON: {error.msg}")
        raise SpecError(problem) from error
    except (OSError, EOFError, KeyError, TypeError, UnicodeDecodeError) as error:
        rule = f"must be a PyTorch profiler trace with traceEvents ({error})"
        raise SpecError(Problem(file=str(path), rule=rule)) from error
    found = list(_gemms(events))
    if not found:
        rule = (
            "has no matrix products with shapes; record the trace with record_shapes=True and CUDA activity"
        )
        raise SpecError(Problem(file=str(path), rule=rule))
    return found


def _gemms(events: list[dict[str, Any]]) -> Iterator[TracedGemm]:
    kernels: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "kernel":
            kernels.setdefault(event.get("args", {}).get("External id", -1), []).append(event)
    for event in events:
        if event.get("cat") != "cpu_op" or event.get("name") not in _INPUTS:
            continue
        arguments = event.get("args", {})
        launched = kernels.get(arguments.get("External id", -2), [])
        first, second = _INPUTS[event["name"]]
        dims, types = arguments.get("Input Dims", []), arguments.get("Input type", [])
        if not launched or max(first, second) >= min(len(dims), len(types)):
            continue
        a, b, dtype = dims[first], dims[second], _DTYPES.get(types[first], "")
        if dtype and len(a) == len(b) and len(a) in (2, 3):
            yield TracedGemm(
                dtype=dtype,
                batch=a[0] if len(a) == 3 else 1,
                m=a[-2],
                k=a[-1],
                n=b[-1],
                microseconds=sum(kernel["dur"] for kernel in launched),
                kernel=launched[0]["name"][:80],
            )
