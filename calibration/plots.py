"""Predicted against measured times, one plot per class of kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.check import Check, Points, figures

_MOST_DOTS = 5000  # more only cover each other


def plot_check(result: Check, folder: Path) -> list[Path]:
    """Write a PNG per class and precision into ``folder``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_plot(points, result.hardware, folder) for points in result.points if len(points.measured)]


def _plot(points: Points, hardware: str, folder: Path) -> Path:
    from matplotlib.figure import Figure  # noqa: PLC0415  (heavy, and few checks plot)

    keep = np.random.default_rng(0).permutation(len(points.measured))[:_MOST_DOTS]
    measured, predicted = points.measured[keep] * 1e6, points.predicted[keep] * 1e6
    errors = figures(points)
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(1.0, color="0.3", linewidth=1)
    axes.scatter(measured, predicted / measured, s=4, alpha=0.4, linewidths=0)
    axes.set(xscale="log", xlabel="measured time (µs)", ylabel="predicted / measured", ylim=(0.4, 1.8))
    axes.set_title(
        f"{hardware}: {points.kernel_class} {points.dtype}\n"
        f"median |error| {100 * errors['median_abs_error']:.1f} %, "
        f"90 % {100 * errors['p90_abs_error']:.1f} %, n = {errors['n']}",
        fontsize=10,
    )
    name = "-".join(f"{points.kernel_class} {points.dtype}".split())
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=120)
    return path
