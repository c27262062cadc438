"""What the source of a run measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from simulator.spec.cluster import FORBID
from simulator.spec.fields import Ratio, Real, Seconds, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the source of a run file measured, for the reader to compare."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID

    source: Text
    """Paper or page, and table."""
    step_time_s: Seconds = 0.0
    """Measured step time; 0: not given."""
    model_tflops_per_gpu: Real = 0.0
    """Model TFLOP/s per GPU as printed; 0: not given."""
    mfu: Ratio = 0.0
    """MFU as printed; 0: not given."""
    flops_convention: Text = ""
    """How the source counts FLOPs."""
    notes: Text = ""
    """What else to know."""
