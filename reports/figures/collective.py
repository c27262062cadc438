"""Bus bandwidth of a collective over message size, marked by the algorithm that reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from matplotlib.figure import Figure

from reports.figures.canvas import new_figure, styled
from reports.style import CYCLE, light
from simulator.network.table import TableRow


@styled
def collective(rows: Sequence[TableRow], title: str) -> Figure:
    """Bus bandwidth and time against size."""
    figure = new_figure(6.0, 8.0)
    above, below = figure.subplots(2, 1, sharex=True)
    sizes = [row.size_bytes for row in rows]
    for axes, values in (
        (above, [row.bus_bandwidth / 1e9 for row in rows]),
        (below, [row.seconds * 1e6 for row in rows]),
    ):
        axes.plot(sizes, values, color=light("grey"), linewidth=1, zorder=1)
        for label, points, colour in _by_algorithm(rows):
            axes.scatter(
                [sizes[i] for i in points],
                [values[i] for i in points],
                s=18,
                color=colour,
                label=label,
                zorder=2,
            )
    errors = [row.relative_error for row in rows]
    below.fill_between(
        sizes,
        [row.seconds * 1e6 * (1 - e) for row, e in zip(rows, errors, strict=True)],
        [row.seconds * 1e6 * (1 + e) for row, e in zip(rows, errors, strict=True)],
        color=light("grey"),
        alpha=0.25,
        linewidth=0,
    )
    above.set_title(title)
    above.set_ylabel("bus bandwidth, GB/s")
    above.set_ylim(bottom=0)
    above.legend(loc="upper left")
    below.set_ylabel("time, µs (± standard error)")
    below.set_xlabel("size, KiB to GiB")
    below.set_xscale("log", base=2)
    below.set_yscale("log")
    ticks = sizes[:: max(1, len(sizes) // 8)]
    below.set_xticks(ticks, [_size(size) for size in ticks])
    below.minorticks_off()
    return figure


def _by_algorithm(rows: Sequence[TableRow]) -> list[tuple[str, list[int], str]]:
    """Label, row numbers and colour of each algorithm and protocol, in order of first use."""
    labelled = [(f"{row.algorithm}, {row.protocol}", index) for index, row in enumerate(rows)]
    order = list(dict.fromkeys(label for label, _ in labelled))
    groups = groupby(sorted(labelled, key=lambda pair: order.index(pair[0])), key=lambda pair: pair[0])
    return [
        (label, [index for _, index in members], light(CYCLE[number % len(CYCLE)]))
        for number, (label, members) in enumerate(groups)
    ]


def _size(size: float) -> str:
    """``64 KiB``, ``1 GiB``."""
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} B"
