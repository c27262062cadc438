"""Kernel times of a DeepSeek-V3 layer against DeepSeek's training trace on H800 (deepseek-ai/profile-data).

The trace holds a forward and a backward of four expert layers: EP 64, TP 1, 4,096 tokens, balanced routing.
"""

from __future__ import annotations

from collections import Counter

import pytest

from simulator.cost.catalog import kernels_for
from simulator.graph.operators import Attention, Gemm, GroupedGemm, MemoryBound
from simulator.partition.plan import plan_run
from simulator.spec.load import load_run

LAYERS = 4
# milliseconds of all kernels of a class in the trace
PRODUCTS = 22.93 + 32.76 + 18.84  # grouped, weight gradients (dense and grouped), other dense products
ATTENTION = 4.95 + 15.12 + 1.02 + 0.88  # forward; backward with its pre- and postprocessing


@pytest.fixture(scope="module")
def milliseconds() -> Counter[str]:
    run = load_run("deepseek-v3-2048-h800")
    kernels = kernels_for(run.cluster)
    chunk = plan_run(run).chunks[3]
    layer = next(layer for layer in chunk.layers if layer.expert_parameters)
    spent: Counter[str] = Counter()
    for segment in (layer.forward, layer.backward):
        for step in segment.steps:
            if isinstance(step.op, Gemm | GroupedGemm | Attention | MemoryBound):
                kind = "product" if isinstance(step.op, Gemm | GroupedGemm) else "other"
                kind = "attention" if isinstance(step.op, Attention) else kind
                spent[kind] += LAYERS * 1e3 * kernels.estimate(step.op).seconds
    return spent


def test_matrix_products_take_as_long_as_in_the_trace(milliseconds: Counter[str]) -> None:
    assert milliseconds["product"] == pytest.approx(PRODUCTS, rel=0.15)


def test_attention_takes_about_as_long_as_in_the_trace(milliseconds: Counter[str]) -> None:
    assert milliseconds["attention"] == pytest.approx(ATTENTION, rel=0.2)


def test_the_layer_runs_the_products_of_the_trace() -> None:
    """Per layer: 16 dense products (7 forward, 7 input gradients, 2 recomputed up-projections), four grouped
    ones, and weight gradients of 7 dense and 2 grouped products (the trace launches those per expert: 4
    each).
    """
    layer = next(
        layer
        for layer in plan_run(load_run("deepseek-v3-2048-h800")).chunks[3].layers
        if layer.expert_parameters
    )
    count: Counter[str] = Counter()
    for segment in (layer.forward, layer.backward):
        for step in segment.steps:
            if isinstance(step.op, Gemm | GroupedGemm) and not step.op.name.startswith("router"):
                grouped = isinstance(step.op, GroupedGemm)
                wgrad = step.op.role == "wgrad"
                count[f"{'grouped' if grouped else 'dense'}{' wgrad' if wgrad else ''}"] += 1
    assert count == {"dense": 16, "grouped": 4, "dense wgrad": 7, "grouped wgrad": 2}
