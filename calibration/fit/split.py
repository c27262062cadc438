"""Holding measurements back: whole groups of shapes, so that a fit is judged on shapes it never saw."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from calibration.readers import Table
from simulator.cost.profile import HeldOut

# kind of table -> the columns that make a group: neighbours within a group differ only in what is left
GROUPS = {
    "gemm": ("n", "k"),
    "gemm_training": ("n", "k"),
    "grouped_gemm_training": ("n", "k"),
    "attention": ("heads", "kv_heads", "head_dim", "seq"),
    "attention_training": ("heads", "kv_heads", "qk_head_dim", "seq"),
    "moe": ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size"),
    "quantize": ("m", "k"),
    "memory_bound": ("read_bytes", "write_bytes"),
}
SHARE = 0.2  # of the groups


def held_out(table: Table) -> npt.NDArray[np.bool_]:
    """A mask of the rows held back, the same in every run and for every device and precision."""
    columns = [table[name] for name in GROUPS[table.kind]]
    keys = np.stack(columns, axis=1)
    groups, index = np.unique(keys, axis=0, return_inverse=True)
    back = np.array(
        [zlib.crc32(repr([float(x) for x in group]).encode()) % 1000 < 1000 * SHARE for group in groups]
    )
    if back.size == 0:
        return np.zeros(0, dtype=np.bool_)
    return np.asarray(back[index.ravel()])


def errors(predicted: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]) -> HeldOut:
    """Figures of predicted / measured - 1."""
    relative = predicted / measured - 1.0
    absolute = np.abs(relative)
    return HeldOut(
        points=len(relative),
        median=float(np.median(absolute)),
        p90=float(np.quantile(absolute, 0.9)),
        bias=float(np.median(relative)),
    )


def random_error(predicted: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]) -> float:
    """Relative standard error of one kernel about the class's bias: the 68 % quantile, robust to outliers."""
    logs = np.log(predicted / measured)
    return float(np.quantile(np.abs(logs - np.median(logs)), 0.683))
