"""Bytes that optimizers keep and move, and Muon's products."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.partition.optimizer import Matrix, Optimizer, newton_schulz
from simulator.simulate import simulate
from simulator.spec.load import load_run


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [
        (Optimizer(name="adamw"), 12.0),  # Rajbhandari 2020, section 3.1: K = 12
        (Optimizer(name="adamw", moment_dtype="bf16"), 8.0),  # DeepSeek-V3 report, section 3.3.3
        (Optimizer(name="adam", master="remainder", moment_dtype="bf16"), 6.0),
        (Optimizer(name="adam", master="remainder", moment_dtype="fp8"), 4.0),
        (Optimizer(name="sgd"), 4.0),
        (Optimizer(name="sgd-momentum"), 8.0),
        (Optimizer(name="muon"), 8.0),
    ],
)
def test_state_per_parameter(optimizer: Optimizer, state: float) -> None:
    assert optimizer.state_bytes == state


def test_adam_in_mixed_precision_moves_34_bytes() -> None:
    """Reads gradient, master, moments (16), writes master, moments (12); the copy reads 4 and writes 2."""
    kernels = Optimizer().step(1e6, 4.0)
    assert [op.name for op in kernels] == ["optimizer", "copy_parameters"]
    assert sum(op.read_bytes for op in kernels) == 20e6
    assert sum(op.write_bytes for op in kernels) == 14e6


def test_bf16_gradients_are_cast_for_an_fp32_master_only() -> None:
    cast, update, _ = Optimizer().step(1e6, 2.0)
    assert (cast.read_bytes, cast.write_bytes) == (2e6, 4e6)
    assert update == Optimizer().step(1e6, 4.0)[0]
    (fused,) = Optimizer(master="remainder", moment_dtype="bf16").step(1e6, 2.0)
    assert (fused.read_bytes, fused.write_bytes) == (2e6 + 8e6, 8e6)


def test_adam_operator_by_operator_moves_88_bytes_and_a_step_in_one_28() -> None:
    """Clip, decay, first moment (reads 8), decay and square of the second (reads 4 and 8), root, correction,
    epsilon, update (reads 12): 52 read, 9 tensors of 4 written; PyTorch 2, ``_multi_tensor_adamw``."""
    kernels = Optimizer(fused=False).step(1e6, 4.0, copy=False)
    assert len(kernels) == 9
    assert (sum(op.read_bytes for op in kernels), sum(op.write_bytes for op in kernels)) == (52e6, 36e6)
    assert sum(op.bytes for op in Optimizer().step(1e6, 4.0, copy=False)) == 28e6
    assert Optimizer(name="sgd", fused=False).step(1e6, 4.0) == Optimizer(name="sgd").step(1e6, 4.0)


def test_newton_schulz_takes_five_steps_of_three_products() -> None:
    """2a²b + 2a³ + 2a²b FLOPs a step, for a ≤ b."""
    ops = newton_schulz(
        (Matrix(rows=4096, columns=1024, count=6), Matrix(rows=1024, columns=4096, count=2)), 1
    )
    a, b = 1024, 4096
    assert len(ops) == 15
    assert sum(op.flops for op in ops) == 5 * 8 * (4 * a * a * b + 2 * a**3)
    dealt = newton_schulz((Matrix(rows=a, columns=b, count=9),), 4)
    assert sum(op.flops for op in dealt) == 5 * 3 * (4 * a * a * b + 2 * a**3)


def test_states_show_in_memory_and_muon_in_the_optimizer_time() -> None:
    run = load_run("llama3-8b-8-h100")

    def with_(optimizer: str, master: str = "fp32") -> tuple[float, float]:
        training = replace(run.training, optimizer=optimizer, master_weights=master)
        result = simulate(replace(run, training=training))
        stages = result.memory["stages"]
        assert isinstance(stages, list)
        return stages[0]["optimizer"], result.breakdown_s["optimizer"]

    adam, aware, muon = with_("adamw"), with_("adamw", "remainder"), with_("muon")
    assert aware[0] / adam[0] == pytest.approx(10 / 12)
    assert aware[1] < adam[1] < muon[1]
    assert muon[0] / adam[0] == pytest.approx(8 / 12)
