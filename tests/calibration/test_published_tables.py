"""The shipped profiles on published measurements, where a copy of the tables lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.fit.split import errors, held_out
from calibration.predict import Predicted, predict
from calibration.readers import Table, read_table
from calibration.transfer import transfer_errors
from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import load_kernel_profile
from simulator.spec.load import load_device

TABLES = Path(__file__).parents[3] / "shared" / "reference" / "microbench"
pytestmark = pytest.mark.skipif(not TABLES.is_dir(), reason="no published tables beside the checkout")


def table(name: str, **wanted: object) -> Table:
    found = read_table(TABLES / name)
    for column, values in wanted.items():
        found = found.where(np.isin(found[column], values))
    return found


def predicted(rows: Table, device: str, profile: str = "") -> tuple[np.ndarray, np.ndarray]:
    spec = load_device(device)
    kernels = Kernels(spec, load_kernel_profile(profile or spec.name))
    found = [part for part in predict(rows, kernels) if isinstance(part, Predicted)]
    return np.concatenate([p.seconds for p in found]), np.concatenate([p.rows.seconds for p in found])


def test_a100_gemms_on_shapes_no_fit_saw() -> None:
    rows = table("gemm_a100.csv.gz", dtype=["bf16"], source=["aic-sglang-0.5.10"])
    rows = rows.where(held_out(rows))
    large = (rows["m"] >= 512) & (rows["n"] >= 512) & (rows["k"] >= 512)
    some, every = errors(*predicted(rows.where(large), "a100")), errors(*predicted(rows, "a100"))
    assert some.median <= 0.04
    assert some.p90 <= 0.12
    assert every.median <= 0.09
    assert every.p90 <= 0.30


def test_a100_attention_on_shapes_no_fit_saw() -> None:
    rows = table("attention_a100.csv.gz", dtype=["bf16"], source=["aic-sglang-0.5.10"], causal=[1])
    found = errors(*predicted(rows.where(held_out(rows) & (rows["seq"] >= 1024)), "a100"))
    assert found.median <= 0.06
    assert found.p90 <= 0.19


@pytest.mark.parametrize(("device", "dtype"), [("a100", "bf16"), ("h100", "bf16"), ("h100", "fp8_block")])
def test_balanced_expert_layers_no_fit_saw(device: str, dtype: str) -> None:
    rows = table(f"moe_gemm_{device}.csv.gz", dtype=[dtype], distribution=["balanced"], moe_ep_size=[1])
    found = errors(*predicted(rows.where(held_out(rows) & (rows["num_tokens"] >= 1024)), device))
    assert found.median <= 0.10
    assert found.p90 <= 0.36


def test_quantising() -> None:
    found = errors(*predicted(table("quantize_h100.csv"), "h100"))
    assert found.median <= 0.04
    assert found.p90 <= 0.10


def test_a_sites_own_profile_halves_the_error_of_its_training_kernels() -> None:
    rows = table("gemm_training_simumax.csv", gpu=["b200"])
    others, own = errors(*predicted(rows, "b200")), errors(*predicted(rows, "b200", "b200-simumax"))
    assert others.bias < -0.15
    assert own.median < 0.5 * others.median


@pytest.mark.slow
def test_a_device_never_measured() -> None:
    rows = table("gemm_b200.csv.gz", source=["aic-trtllm-1.3.0rc20"])
    assert transfer_errors(rows, "b200", ["h100-sxm5-80gb", "h200-sxm-141gb"]).median <= 0.15
    assert transfer_errors(rows, "b200", ["gb200", "b300"]).median <= 0.09
