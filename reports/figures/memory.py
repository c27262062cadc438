"""Device memory: its parts on every stage, and its course over the step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.figures.bars import boxes
from reports.figures.canvas import new_figure, styled
from reports.quantities import GIB, gibibytes
from reports.style import MEMORY, light
from simulator.details import Counter
from simulator.result import Result

MOST_NUMBERS = 24  # stages; beyond, bars are too narrow to carry a number
SHOWN = 4  # stages whose memory is followed over time


@styled
def memory(result: Result) -> Figure:
    """Stacked bars of the peak of every stage, under the line of the device's capacity."""
    stages = result.memory["stages"]
    figure = new_figure(3.2)
    axes = figure.subplots()
    below = [0.0] * len(stages)
    for name, colour in MEMORY.items():
        sizes = [stage[name] / GIB for stage in stages]
        above = [low + size for low, size in zip(below, sizes, strict=True)]
        found = [(x - 0.36, x + 0.36, low, high) for x, low, high in zip(count(), below, above, strict=False)]
        boxes(axes, found, colour).set_label(name)
        below = above
    capacity = result.memory["capacity_bytes"] / GIB
    _capacity_line(axes, capacity)
    axes.set(ylim=(0, 1.13 * max(capacity, *below)), xlabel="stage", ylabel="memory per GPU, GiB")
    axes.set(xlim=(-0.6 if len(stages) > 4 else -1.5, len(stages) - (0.4 if len(stages) > 4 else -0.5)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(stages) <= MOST_NUMBERS:
        peaks = [f"{index}\n{gibibytes(stage['peak_bytes'])}" for index, stage in enumerate(stages)]
        axes.set_xticks(range(len(stages)), peaks)
        axes.set_xlabel("stage, and its peak in GiB")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper right", ncols=len(MEMORY))
    return figure


@styled
def memory_over_time(result: Result) -> Figure:
    """The course of the fullest stage, the ends of the pipeline, and the emptiest.

    Raises ValueError for a result without details.
    """
    counters = _counters(result)
    figure = new_figure(2.7)
    axes = figure.subplots()
    for number, (counter, remark) in enumerate(_chosen(counters)):
        times = [*counter.times_s, result.step_time_s]
        values = [value / GIB for value in (*counter.values, counter.values[-1])]
        label = f"stage {counter.device}" + (f" ({remark})" if remark else "")
        axes.plot(times, values, drawstyle="steps-post", label=label, linewidth=1.3, zorder=3 - number / 10)
    capacity = result.memory["capacity_bytes"] / GIB
    _capacity_line(axes, capacity)
    top = max(capacity, result.memory["peak_bytes"] / GIB)
    axes.set(
        xlim=(0, result.step_time_s), ylim=(0, 1.1 * top), xlabel="time, s", ylabel="memory per GPU, GiB"
    )
    figure.legend(loc="outside upper right", ncols=SHOWN)
    return figure


def _counters(result: Result) -> list[Counter]:
    if result.details is None:
        raise ValueError("the result has no timeline to draw: simulate(run, timeline=True) keeps it")
    return [counter for counter in result.details.counters if counter.name == "memory"]


def _chosen(counters: Sequence[Counter]) -> list[tuple[Counter, str]]:
    """At most ``SHOWN`` stages, fullest first, each with what it is."""
    fullest = max(counters, key=lambda counter: max(counter.values))
    emptiest = min(counters, key=lambda counter: max(counter.values))
    picked: dict[int, tuple[Counter, str]] = {
        fullest.device: (fullest, "fullest" if len(counters) > 1 else "")
    }
    for counter, remark in ((counters[0], "first"), (counters[-1], "last"), (emptiest, "emptiest")):
        picked.setdefault(counter.device, (counter, remark))
    return list(picked.values())


def _capacity_line(axes: Axes, capacity: float) -> None:
    axes.axhline(capacity, color=light("ink"), linewidth=1.0, linestyle=(0, (4, 2)))
    axes.annotate(
        f"capacity {capacity:,.1f} GiB",
        (1.0, capacity),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        bbox={"facecolor": light("paper"), "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )
