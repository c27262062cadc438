"""What a training step keeps of the rates that short benchmarks reach, by device and width of numbers.

Power limits, clocks, and kernels that share memory and processors slow matrix kernels down over seconds of
training; microbenchmarks of milliseconds do not see it. One factor per device and precision class, fitted on
whole published training steps (never per run, model or layout), multiplies the compute rate of all matrix
kernels of a run. It also absorbs whatever the simulator leaves out in proportion to compute. ``stepcast
validate --cross-validate`` fits it anew without each scored group, which is the honest test of it; the file
says how far groups differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from simulator.spec.yaml_loader import parse_yaml

FILE = "sustained.yaml"
CLASSES = {"fp32": "fp32", "tf32": "fp32", "fp16": "16-bit", "bf16": "16-bit", "nvfp4": "4-bit"}
NARROW = "8-bit"  # every other precision


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedRate:
    """One factor. ``low`` and ``high``: the range of the factors that single groups would have alone."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    factor: float
    rows: int
    groups: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedRates:
    """All factors: kernel profile → precision class → factor."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    fitted: str
    source: str
    devices: dict[str, dict[str, SustainedRate]]


def precision_class(precision: str) -> str:
    """The class of a run's precision: the width of the numbers its linear layers multiply."""
    return CLASSES.get(precision, NARROW)


def sustained_rate(profile: str, precision: str) -> SustainedRate | None:
    """The factor of a kernel profile and a run's precision; ``None`` where nothing is known.

    A class without a factor of its own takes that of the nearest class of the same device.
    """
    known = _shipped().devices.get(profile)
    if not known:
        return None
    wanted = precision_class(precision)
    return known.get(wanted) or known.get("16-bit") or known.get(NARROW) or next(iter(known.values()))


@cache
def _shipped() -> SustainedRates:
    path = resources.files("hardware_profiles") / FILE
    node = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    return TypeAdapter(SustainedRates).validate_python(node.plain())
