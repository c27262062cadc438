"""What the peak of a device loses on the way to the MFU, in words and as shares of the peak."""

from __future__ import annotations

from typing import NamedTuple

from reports.causes import kind, words
from reports.quantities import percent, percentages
from simulator.result import Result

MODEL = "model_flops"
SMALLEST = 0.0005  # of the step; less is not shown
_WORDS = {
    "uncounted_flops": ("FLOPs not counted", "compute"),
    "lower_precision": ("wider number formats", "compute"),
    "sustained_rate": ("power and clocks", "compute"),
    "gemm": ("gemm kernels", "compute"),
    "grouped_gemm": ("grouped gemm kernels", "compute"),
    "attention": ("attention kernels", "compute"),
    "memory_bound": ("memory-bound kernels", "compute"),
    "recompute": ("recompute", "compute"),
    "imbalance": ("uneven stages", "bubble"),
}


class Loss(NamedTuple):
    """A part of the peak that is lost: its name, its kind, its share of the step, the share in print."""

    words: str
    kind: str
    share: float
    printed: str


def losses(result: Result) -> list[Loss]:
    """From the peak down; printed shares and the printed MFU add up to 100 %."""
    shares = {label: seconds / result.step_time_s for label, seconds in result.waterfall_s.items()}
    shown = {label: share for label, share in shares.items() if label != MODEL and abs(share) >= SMALLEST}
    lost = 100.0 - float(percent(result.mfu).partition(" ")[0])
    printed = percentages(list(shown.values()), whole=lost)
    return [
        Loss(*_WORDS.get(label, (words(label), kind(label))), share, text)
        for (label, share), text in zip(shown.items(), printed, strict=True)
    ]
