"""Numbers as people read them: three or four digits and a unit."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

GIB = 2**30


def seconds(value: float, significant: int = 3) -> str:
    """``13.2 s``, ``85.3 ms``, ``4.00 µs``."""
    factor, unit = _time_unit(value)
    return f"{digits(value * factor, significant)} {unit}"


def seconds_between(low: float, high: float) -> str:
    """``12.6 – 13.9 s``: both ends in the unit of the larger."""
    factor, unit = _time_unit(high)
    return f"{digits(low * factor)} – {digits(high * factor)} {unit}"


def gibibytes(value: float) -> str:
    """Bytes as GiB with one decimal, without the unit."""
    return f"{value / GIB:,.1f}"


def scaled(value: float) -> str:
    """``1.27 M``, ``405 G``, ``77.5``: a count with its SI prefix."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{digits(value / factor)} {prefix}"
    return digits(value)


def digits(value: float, significant: int = 3) -> str:
    """So many significant digits, but never fewer than the whole part: ``0.0123``, ``13.2``, ``1,234``."""
    if value == 0:
        return "0"
    magnitude = floor(log10(abs(float(f"{value:.{significant - 1}e}"))))
    return f"{value:,.{max(0, significant - 1 - magnitude)}f}"


def percent(share: float, decimals: int = 1) -> str:
    """``40.7 %``."""
    return f"{100 * share:.{decimals}f} %"


def percentages(parts: Sequence[float], decimals: int = 1, whole: float = 100.0) -> list[str]:
    """Shares of the total, rounded so that the printed numbers add up to ``whole`` (largest remainder)."""
    scale = 10**decimals
    total = sum(parts)
    if total <= 0:
        return ["0"] * len(parts)
    exact = [whole * scale * part / total for part in parts]
    floors = [int(value // 1) for value in exact]
    missing = round(whole * scale) - sum(floors)
    by_remainder = sorted(range(len(parts)), key=lambda i: floors[i] - exact[i])
    for index in by_remainder[:missing]:
        floors[index] += 1
    return [f"{value / scale:.{decimals}f}" for value in floors]


def _time_unit(value: float) -> tuple[float, str]:
    if value >= 0.9995 or value == 0:
        return 1.0, "s"
    return (1e3, "ms") if value >= 0.9995e-3 else (1e6, "µs")
