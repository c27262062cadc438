"""Kernels follow the generation of a row's software, not its source or what it measured."""

from __future__ import annotations

import re

import pytest

from simulator.simulate import simulate
from simulator.spec.run import Runtime
from simulator.validation.predict import express
from simulator.validation.row_to_run import NotExpressibleError, to_run
from simulator.validation.rows import shipped_rows
from simulator.validation.software import GENERATIONS

KERNELS = {
    "llm-foundry": {"triton"},  # attn_impl: triton
    "torchtitan": {"flash2"},  # scaled_dot_product_attention
    "2021|2022|deepspeed": {"unfused"},
    "nemo": {"flash"},  # Transformer Engine's, the device's usual ones
}


@pytest.mark.parametrize("software", KERNELS)
def test_attention_of_each_software(software: str) -> None:
    found = set()
    for row in shipped_rows():
        if re.search(software, row.identity.software, re.IGNORECASE):
            try:
                found.add(to_run(row).runtime.attention)
            except NotExpressibleError:
                continue
    assert found == KERNELS[software]


@pytest.mark.parametrize("table", ["t1", "t3"])
def test_what_compiling_saves_in_torchtitan(table: str) -> None:
    """The seconds between the published eager and compiled steps of one recipe: memory-bound work, whatever
    the sustained rate of the products."""
    names = [f"titan-{table}-{name}" for name in ("eager", "compile")]
    rows = {row.run_id: row for row in shipped_rows() if row.run_id in names}
    expressed, refused = express(rows[name] for name in names)
    assert not refused
    eager, compiled = (simulate(item.run).step_time_s for item in expressed)
    saved = expressed[0].measured_s - expressed[1].measured_s
    assert eager - compiled == pytest.approx(saved, rel=0.15)


def test_generations_name_keys_of_the_runtime() -> None:
    for generation in GENERATIONS:
        Runtime(**generation.runtime)  # type: ignore[arg-type]
        assert generation.source
