"""Writes ``hardware_profiles/sustained.yaml`` from the published training runs.

Run as ``python -m calibration.sustained [FILE]`` after the physics has changed; then look at
``stepcast validate --cross-validate``, which fits the factors without the groups it scores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from math import hypot
from pathlib import Path

import yaml

from simulator.cost.profile_file import kernel_profile_names
from simulator.cost.sustained import FILE, carried_over
from simulator.spec.cluster import DeviceSpec
from simulator.spec.load import load_device
from simulator.validation.rows import shipped_rows
from simulator.validation.sustained import ClassFactor
from simulator.validation.validate import cross_validate

DIGITS = 3
CARRIED_ERROR = (
    0.1  # of a factor on another device of its kind: as much as siblings with rows of their own differ
)
ABOUT = """\
# Share of the microbenchmarked compute rate that training steps sustain, by device and precision class.
# Fitted on whole published training steps: one factor per device and class, never per run, model or layout.
# Written by: python -m calibration.sustained
"""


def as_mapping(factors: Sequence[ClassFactor]) -> dict[str, object]:
    """The content of the file. Devices without rows take the factors of those they resemble: 0 rows."""
    devices: dict[str, dict[str, dict[str, float]]] = {}
    for each in factors:
        devices.setdefault(each.device, {})[each.precision] = {
            "factor": round(each.factor, DIGITS),
            "error": round(each.error, DIGITS),
            "rows": each.rows,
            "groups": each.groups,
            "low": round(each.spread[0], DIGITS),
            "high": round(each.spread[1], DIGITS),
        }
    for name, base in transferred().items():
        if name not in devices and base in devices:
            devices[name] = {
                width: _carried(known, load_device(base), load_device(name))
                for width, known in devices[base].items()
            }
    return {
        "fitted": datetime.now(UTC).date().isoformat(),
        "source": "high-confidence rows of workloads/published",
        "devices": devices,
    }


def _carried(known: dict[str, float], base: DeviceSpec, device: DeviceSpec) -> dict[str, float]:
    """The factor of a device for another, which nobody measured."""
    rates = {
        key: round(min(1.0, carried_over(known[key], base, device)), DIGITS)
        for key in ("factor", "low", "high")
    }
    error = round(hypot(known["error"], CARRIED_ERROR), DIGITS)
    return {"factor": rates.pop("factor"), "error": error, "rows": 0, "groups": 0, **rates}


def transferred() -> dict[str, str]:
    """Kernel profiles of devices without measurements of their own, and those they were carried over from."""
    folder = resources.files("hardware_profiles") / "kernels"
    profiles = {
        name: yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in kernel_profile_names()
    }
    return {name: data["base"] for name, data in profiles.items() if "widen_site" in data}


def main(path: Path) -> None:
    """Fits the factors and replaces the file."""
    factors = cross_validate(shipped_rows()).class_factors
    text = ABOUT + yaml.safe_dump(as_mapping(factors), sort_keys=False)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("hardware_profiles") / FILE)
