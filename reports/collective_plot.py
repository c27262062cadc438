"""Bus bandwidth of a collective over message size, marked by the algorithm that reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.network.table import TableRow

COLOURS = ("#3b6ea5", "#c8553d", "#5a8f4e", "#8a6bb1", "#b58a2e", "#4f9aa8")
DPI = 150


def plot_collective(rows: Sequence[TableRow], path: Path, *, title: str) -> None:
    """Draw time and bus bandwidth against size into ``path`` (.png, .svg or .pdf)."""
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"cannot draw into {path.name!r}: the name must end in .png, .svg or .pdf")
    from matplotlib.figure import Figure  # noqa: PLC0415 (only this command pays for matplotlib)

    figure = Figure(figsize=(8.0, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    sizes = [row.size_bytes for row in rows]
    for axes, values in (
        (above, [row.bus_bandwidth / 1e9 for row in rows]),
        (below, [row.seconds * 1e6 for row in rows]),
    ):
        axes.plot(sizes, values, color="#999999", linewidth=1, zorder=1)
        for label, points, colour in _by_algorithm(rows):
            axes.scatter(
                [sizes[i] for i in points],
                [values[i] for i in points],
                s=18,
                color=colour,
                label=label,
                zorder=2,
            )
        axes.grid(alpha=0.25, which="major")
        axes.spines[["top", "right"]].set_visible(False)
    errors = [row.relative_error for row in rows]
    below.fill_between(
        sizes,
        [row.seconds * 1e6 * (1 - e) for row, e in zip(rows, errors, strict=True)],
        [row.seconds * 1e6 * (1 + e) for row, e in zip(rows, errors, strict=True)],
        color="#999999",
        alpha=0.25,
        linewidth=0,
    )
    above.set_title(title, loc="left", fontsize=11)
    above.set_ylabel("bus bandwidth, GB/s")
    above.set_ylim(bottom=0)
    above.legend(frameon=False, fontsize=9, loc="upper left")
    below.set_ylabel("time, µs (± standard error)")
    below.set_xlabel("size")
    below.set_xscale("log", base=2)
    below.set_yscale("log")
    ticks = sizes[:: max(1, len(sizes) // 8)]
    below.set_xticks(ticks, [_size(size) for size in ticks])
    below.minorticks_off()
    figure.savefig(path, dpi=DPI)


def _by_algorithm(rows: Sequence[TableRow]) -> list[tuple[str, list[int], str]]:
    """Label, row numbers and colour of each algorithm and protocol, in order of first use."""
    labelled = [(f"{row.algorithm}, {row.protocol}", index) for index, row in enumerate(rows)]
    order = list(dict.fromkeys(label for label, _ in labelled))
    groups = groupby(sorted(labelled, key=lambda pair: order.index(pair[0])), key=lambda pair: pair[0])
    return [
        (label, [index for _, index in members], COLOURS[number % len(COLOURS)])
        for number, (label, members) in enumerate(groups)
    ]


def _size(size: float) -> str:
    """``64 KiB``, ``1 GiB``."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} B"
