"""Tiles of the Triton kernel that inference frameworks run a mixture of experts with.

The kernel takes its tiles from a file that somebody tuned for exactly this number of experts, this width of
an expert and this device, and where there is none from a default that reuses far less of what it loads.
Source: sglang 0.5.10 (Apache-2.0), ``sglang/srt/layers/moe/fused_moe_triton``: ``get_default_config`` and the
names of the files in ``configs/`` for A100 SXM4 80 GB without quantisation. Tiles are rows × columns of C and
steps of k: of the tuned files those that 512 and more tokens get.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.readers import Table
from simulator.cost.gemm import Tiles


class Blocks(NamedTuple):
    """What a kernel cuts its products into."""

    tiles: Tiles
    step_k: int

    def padded(self, k: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """k in whole steps."""
        return np.asarray(self.step_k * np.ceil(k / self.step_k))


DEFAULT = Blocks(((64, 64),), 32)
TUNED = Blocks(((128, 128), (64, 256)), 64)

# experts of a rank: widths of an expert's shard
_FILES = {
    1: (1792, 3584, 7168, 14336),
    8: (1792, 2048, 3584, 4096, 7168),
    16: (1344, 1792, 2688, 3584, 7168, 14336),
    64: (640, 1280),
    257: (64,),
}


def is_triton(table: Table) -> npt.NDArray[np.bool_]:
    """Rows of an MoE table that this kernel ran."""
    return np.asarray(np.char.endswith(table["kernel"], "triton"))


def is_tuned(table: Table) -> npt.NDArray[np.bool_]:
    """Rows of an MoE table whose layer has a file."""
    experts = table["num_experts"] / table["moe_ep_size"]
    widths = table["inter_size"] / table["moe_tp_size"]
    found = [width in _FILES.get(int(count), ()) for count, width in zip(experts, widths, strict=True)]
    return np.array(found, dtype=np.bool_)
