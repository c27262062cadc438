"""How many kernels a second the cost model answers for: arrays of GEMM shapes, and operators it has seen.

Run by ``make bench``. Prints; asserts nothing, because times on a shared machine prove nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

from simulator.cost.gemm import Products, gemm_times
from simulator.cost.kernels import Kernels
from simulator.cost.profile_file import load_kernel_profile
from simulator.cost.rates import Rates
from simulator.graph.operators import Gemm
from simulator.spec.load import load_device

SHAPES = 200_000
OPERATORS = 200
REPEATS = 100


def rate(action: Callable[[], object], kernels: int) -> float:
    """Kernels per second of processor time, after a call that is not counted."""
    action()
    begun = time.process_time()
    action()
    return kernels / (time.process_time() - begun)


def shapes_per_second() -> float:
    """GEMM shapes of 1 to 65,536 in every dimension, as arrays."""
    device = load_device("h100")
    coefficients = load_kernel_profile(device.name).gemm["bf16"].coefficients
    sizes = np.round(np.exp(np.random.default_rng(0).uniform(0, np.log(65536), (3, SHAPES))))
    products = Products.of(m=sizes[0], n=sizes[1], k=sizes[2])
    rates = Rates(device.peak_flops["bf16"], device.memory_bandwidth, device.sm_count)
    return rate(lambda: gemm_times(products, rates, coefficients), SHAPES)


def cached_per_second() -> float:
    """Operators that the model has estimated before."""
    device = load_device("h100")
    model = Kernels(device, load_kernel_profile(device.name))
    ops = [Gemm(name="g", m=128 * i, n=4096, k=4096) for i in range(1, OPERATORS + 1)]

    def estimate() -> None:
        for _ in range(REPEATS):
            for op in ops:
                model.estimate(op)

    return rate(estimate, OPERATORS * REPEATS)


def main() -> None:
    """Print both."""
    for label, found in (
        ("GEMM shapes", shapes_per_second()),
        ("operators seen before", cached_per_second()),
    ):
        sys.stdout.write(f"{label:<44}{found / 1e6:9.2f} million a second\n")


if __name__ == "__main__":
    main()
