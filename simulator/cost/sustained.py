"""What a training step keeps of the rates that short benchmarks reach, by device and width of numbers.

Power limits, clocks, and kernels that share memory and processors slow matrix kernels down over seconds of
training; microbenchmarks of milliseconds do not see it. One factor per device and precision class, fitted on
whole published training steps (never per run, model or layout), slows the matrix kernels of a run down: a
product at the device's best rate by the factor, others by the power they draw (:func:`clock_kept`). It also
absorbs whatever the simulator leaves out in proportion to compute. ``stepcast validate --cross-validate``
fits it anew without each scored group, which is the honest test of it; the file says how far groups differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar, NamedTuple

from pydantic import ConfigDict, TypeAdapter

from simulator.spec.cluster import DeviceSpec
from simulator.spec.yaml_loader import parse_yaml

FILE = "sustained.yaml"
POWER_EXPONENT = 1.0 / 3.0
BOARD_EXPONENT = 0.5
"""Of a device's power limit in its clock. The cube law holds of dynamic power; a third of a board's power is
not dynamic (leakage, memory, voltage regulators: an estimate after AccelWattch, Kandiah 2021, remembered and
not read), so a per cent of the limit is 1.5 % of dynamic power, and half a per cent of the clock."""
CLASSES = {"fp32": "fp32", "tf32": "fp32", "fp16": "16-bit", "bf16": "16-bit", "nvfp4": "4-bit"}
NARROW = "8-bit"  # every other precision


class Sustained(NamedTuple):
    """A factor and its relative standard error from site to site; no error: nothing but benchmarks is known,
    and their own errors apply."""

    factor: float = 1.0
    error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedRate:
    """One factor and its relative standard error from site to site.

    ``low`` and ``high``: the range of the factors that single groups would have alone.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    factor: float
    error: float
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


def clock_kept(factor: float, utilisation: float) -> float:
    """The share of its clock that the power limit leaves a matrix kernel, at most 1.

    Dynamic power grows with a kernel's activity and with the cube of the clock, as the voltage follows it
    (Weste & Harris, CMOS VLSI Design, section 5.2). So the clock at which the limit is met goes with the
    inverse cube root of the activity: kernels that leave tensor cores idle keep their clock.

    Args:
        factor: of a product at the best rate.
        utilisation: the kernel's rate at full clock, over that best rate.
    """
    if factor >= 1.0:
        return factor
    return min(1.0, factor * utilisation**-POWER_EXPONENT) if utilisation > 0.0 else 1.0


def carried_over(factor: float, known: DeviceSpec, wanted: DeviceSpec) -> float:
    """What a factor of one device says about another: more power for as many FLOP/s leaves a higher clock.

    The clock follows the limit over the activity at full clock, which goes with the peak. What a FLOP takes
    differs between architectures, so devices of two, or of unknown power, are taken as equal.
    """
    had, has = _watts_per_flop(known), _watts_per_flop(wanted)
    if known.architecture != wanted.architecture or not had or not has:
        return factor
    return float(factor * (has / had) ** BOARD_EXPONENT)


def _watts_per_flop(device: DeviceSpec) -> float:
    """Of 16-bit arithmetic; 0 where power or rate are not known."""
    peak = device.peak_flops.get("bf16") or device.peak_flops.get("fp16")
    return device.tdp_w / peak if peak else 0.0


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
