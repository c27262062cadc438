"""From the device's peak to the predicted MFU: what each loss takes of the step.

Everything is time per GPU: what the model's FLOPs would take at the peak, then one term per loss, which
together are the step. Divided by the step, the first term is the MFU and the others are what the peak loses.

``model_flops``
    the FLOPs that the convention counts, at the peak: ``mfu`` × step time
``uncounted_flops``
    executed beyond these, at the peak: flash attention's second scores, the router; negative where the
    convention counts what is not executed
``lower_precision``
    kernels in a precision whose peak is below that of the linear layers
``sustained_rate``
    what power and clocks take of these kernels' rates in training
``gemm``, ``grouped_gemm``, ``attention``
    what these kernels take beyond their FLOPs at that rate
``memory_bound``
    all kernels without matrix arithmetic
``recompute``
    kernels that run a second time in the backward pass
``exposed_…``
    communication that the compute stream waits for, by axis, longest first
``bubble``, ``imbalance``
    idleness of the pipeline: what even the busiest stage has of it, and what the others have beyond
``optimizer``, ``host``, …
    every other cause of the breakdown
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from simulator.engine.attribution import BUBBLE


class KernelUse(NamedTuple):
    """A kernel's part of a step, as the mean over GPUs."""

    category: str
    repeated_s: float  # time of the runs that recompute activations
    peak_s: float  # what its other runs' FLOPs take at the dense peak of its own precision
    clocked_s: float  # the same at the clock that the power limit leaves them
    flops: float  # of these runs


def waterfall(
    kernels: Iterable[KernelUse],
    breakdowns: Sequence[Mapping[str, float]],
    *,
    model_s: float,
    peak_flops: float,
) -> dict[str, float]:
    """Seconds by cause, from the peak down; they sum to the step time.

    Args:
        kernels: of the layers.
        breakdowns: one per pipeline stage, each summing to the step time.
        model_s: time of the counted FLOPs at the peak.
        peak_flops: dense peak in the precision of the linear layers, FLOP/s.
    """
    spent = _mean(breakdowns)
    clocked, repeated = defaultdict[str, float](float), defaultdict[str, float](float)
    executed_s = busy_s = 0.0
    for kernel in kernels:
        busy_s += kernel.peak_s
        clocked[kernel.category] += kernel.clocked_s
        repeated[kernel.category] += kernel.repeated_s
        executed_s += kernel.flops / peak_flops
    once = {category: spent.pop(category, 0.0) - repeated[category] for category in repeated}
    return {
        "model_flops": model_s,
        "uncounted_flops": executed_s - model_s,
        "lower_precision": busy_s - executed_s,
        "sustained_rate": sum(clocked.values()) - busy_s,
        **{name: seconds - clocked[name] for name, seconds in once.items() if clocked[name]},
        "memory_bound": sum(seconds for name, seconds in once.items() if not clocked[name]),
        "recompute": sum(repeated.values()),
        **_waiting(spent, min(there.get(BUBBLE, 0.0) for there in breakdowns)),
    }


def _waiting(spent: Mapping[str, float], busiest_s: float) -> dict[str, float]:
    """Everything but kernels; ``busiest_s`` is the bubble of the busiest stage."""
    longest_first = sorted(spent, key=lambda label: -spent[label])
    exposed = {label: spent[label] for label in longest_first if label.startswith("exposed_")}
    idle = {BUBBLE: busiest_s, "imbalance": spent.get(BUBBLE, 0.0) - busiest_s}
    known = (BUBBLE, *exposed)
    rest = {label: seconds for label, seconds in spent.items() if seconds and label not in known}
    return {**exposed, **idle, **rest}


def _mean(breakdowns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total = defaultdict[str, float](float)
    for spent in breakdowns:
        for label, seconds in spent.items():
            total[label] += seconds / len(breakdowns)
    return total
