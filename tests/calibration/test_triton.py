"""Expert layers in the tiles that their Triton kernel has."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.compose import Streams, moe_row_times
from calibration.readers import Table, read_table
from calibration.triton import is_triton, is_tuned
from simulator.cost.gemm import GemmCoefficients
from simulator.cost.memory_bound import MemoryCoefficients
from simulator.cost.rates import Rates

HEAD = (
    "dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,distribution,kernel,"
    "time_us,source"
)
C = GemmCoefficients(
    efficiency=0.8, half_tile=0.9, quarter_tile=0.7, eighth_tile=0.45, bandwidth=0.8, fixed_s=0.0
)
STREAMS = Streams(
    kinds=dict.fromkeys(("permute", "activation"), MemoryCoefficients(bandwidth=1.0, fixed_s=0.0)),
    memory_bandwidth=2e15,  # nothing waits for memory
    l2_bytes=4e7,
)
RATES = Rates(312e12, 2e15, 108)


def layers(tmp_path: Path, *rows: str) -> Table:
    path = tmp_path / "moe.csv"
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return read_table(path)


def layer(
    width: int,
    *,
    experts: int = 8,
    tp: int = 1,
    ep: int = 1,
    kernel: str = "fused_moe_triton",
    source: str = "own",
) -> str:
    return f"bf16,32768,4096,{width},2,{experts},{tp},{ep},balanced,{kernel},900,{source}"


def times(table: Table) -> np.ndarray:
    return moe_row_times(table, "bf16", RATES, C, STREAMS)


def test_a_file_is_for_the_experts_and_the_shard_of_one_rank(tmp_path: Path) -> None:
    table = layers(
        tmp_path, layer(14336), layer(14336, tp=2), layer(3584, experts=64, ep=8), layer(3584, experts=64)
    )
    assert is_tuned(table).tolist() == [False, True, True, False]


def test_only_its_kernel_has_such_tiles(tmp_path: Path) -> None:
    table = layers(tmp_path, layer(7168), layer(7168, kernel="fused_moe"))
    assert is_triton(table).tolist() == [True, False]


def test_without_a_file_the_smallest_tile_sets_the_rate(tmp_path: Path) -> None:
    tuned, default = times(layers(tmp_path, layer(7168), layer(7168 + 256)))
    assert np.isclose(default / tuned, (7168 + 256) / 7168 * C.half_tile / C.eighth_tile, rtol=0.02)


def test_k_is_padded_to_whole_steps(tmp_path: Path) -> None:
    whole, part = times(layers(tmp_path, layer(256 - 32, experts=128), layer(256 - 48, experts=128)))
    n_whole, n_part = (np.ceil(2 * width / 64) for width in (224, 208))
    padded = (4096 * n_part + 224 * 64) / (4096 * n_whole + 224 * 64)
    assert np.isclose(part / whole, padded, rtol=1e-6)


def test_tokens_sent_whole_keep_their_experts_together(tmp_path: Path) -> None:
    def row(ep: int, source: str) -> str:
        return layer(1024, experts=64, ep=ep, source=source)

    sglang = times(layers(tmp_path, *(row(ep, "aic-sglang-0.5.10") for ep in (1, 2, 4))))
    others = times(layers(tmp_path, *(row(ep, "own") for ep in (1, 2, 4))))
    assert np.allclose(sglang / sglang[0], [1, 1, 0.5], rtol=0.05)  # two experts a token
    assert np.allclose(others / others[0], [1, 0.5, 0.25], rtol=0.05)
