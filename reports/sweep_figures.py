"""Pictures of a sweep: a map over two axes, the Pareto front, the losses of the runners-up, scaling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from reports.causes import by_kind
from reports.figures.canvas import new_figure, styled
from reports.quantities import GIB, digits, percent, scaled
from reports.style import CAUSES, light
from reports.sweep_table import axis_names, label
from simulator.sweep.compare import pareto_front

if TYPE_CHECKING:
    from simulator.sweep.evaluation import Evaluation
    from simulator.sweep.search import Outcome

MOST_CELLS = 24  # values of an axis that a map can show
_SEEN = 0.002  # of a step: what takes less cannot be seen in a bar
_SHOWN = 12  # layouts whose losses are drawn


def sweep_figures(outcome: Outcome) -> dict[str, Figure]:
    """Every figure that the results have something for, by name."""
    if not outcome.ranked:
        return {}
    found: dict[str, Figure] = {"losses": losses(outcome), "pareto": pareto(outcome)}
    pair = widest_pair(outcome)
    if pair is not None:
        found["map"] = heat_map(outcome, *pair)
    if len({run.gpus for run in _runs(outcome)}) > 1:
        found["scaling"] = scaling(outcome)
    return found


def widest_pair(outcome: Outcome) -> tuple[int, int] | None:
    """The two axes that matter most: whose values change the best reachable step time the most."""
    spreads = {}
    for index, _ in enumerate(outcome.sweep.space.axes):
        best = _best_by(outcome, (index,))
        if 1 < len(best) <= MOST_CELLS:
            times = [evaluation.step_time_s for evaluation in best.values()]
            spreads[index] = max(times) / min(times)
    chosen = sorted(spreads, key=lambda index: -spreads[index])[:2]
    pairs = list(combinations(sorted(chosen), 2))
    return pairs[0] if pairs else None


@styled
def heat_map(outcome: Outcome, rows: int, columns: int) -> Figure:
    """The best step time for each pair of values of two axes, everything else being as good as it can."""
    best = _best_by(outcome, (rows, columns))
    down, across = (_sorted({key[place] for key in best}) for place in (0, 1))
    fastest = min(evaluation.step_time_s for evaluation in best.values())
    names = axis_names(outcome)
    figure = new_figure(1.2 + 0.42 * len(down), max(5.0, 2.2 + 0.85 * len(across)))
    axes = figure.subplots()
    for y, row in enumerate(down):
        for x, column in enumerate(across):
            evaluation = best.get((row, column))
            if evaluation is None:
                axes.text(x, y, "–", ha="center", va="center", color=light("muted"))
                continue
            slower = evaluation.step_time_s / fastest - 1
            shade = 0.85 / (1 + 4 * slower)
            axes.fill_between(
                [x - 0.49, x + 0.49], y - 0.48, y + 0.48, color=light("blue"), alpha=shade, lw=0
            )
            words = digits(evaluation.step_time_s) + (
                f"\n+{percent(slower, 1 if slower < 0.1 else 0)}" if slower else ""
            )
            colour = light("paper") if shade > 0.5 else light("ink")
            axes.text(x, y, words, ha="center", va="center", color=colour, fontsize=7.5)
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.set(xlabel=names[columns], ylabel=names[rows], xlim=(-0.5, len(across) - 0.5))
    axes.set_ylim(len(down) - 0.5, -0.5)
    axes.set_title(f"Best step time, s, by {names[rows]} and {names[columns]}")
    axes.grid(visible=False)
    return figure


@styled
def pareto(outcome: Outcome) -> Figure:
    """Step time against memory; the line joins the layouts that none beats in both."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    memory, times = [e.peak_bytes / GIB for e in outcome.ranked], [e.step_time_s for e in outcome.ranked]
    axes.scatter(memory, times, s=9, color=light("grey"), alpha=0.5, linewidths=0)
    front = pareto_front(outcome.ranked, (lambda e: e.step_time_s, lambda e: e.peak_bytes))
    line = [(e.peak_bytes / GIB, e.step_time_s) for e in front]
    axes.plot(*zip(*line, strict=True), color=light("blue"), marker="o", markersize=4, drawstyle="steps-pre")
    for evaluation, side, above in ((front[0], "right", -12), (front[-1], "left", 6)):
        at = (evaluation.peak_bytes / GIB, evaluation.step_time_s)
        axes.annotate(
            f"id {evaluation.number}", at, xytext=(0, above), textcoords="offset points", ha=side, fontsize=8
        )
    axes.set(xlabel="peak memory of the fullest GPU, GiB", ylabel="step time, s", ylim=_range(line, times))
    axes.set_title("Step time against memory")
    return figure


@styled
def losses(outcome: Outcome) -> Figure:
    """Where the steps of the best layouts go, side by side."""
    shown = outcome.ranked[:_SHOWN]
    figure = new_figure(1.1 + 0.3 * len(shown))
    axes = figure.subplots()
    steps = np.array([evaluation.step_time_s for evaluation in shown])
    spent = [by_kind(evaluation.breakdown_s) for evaluation in shown]
    begin = np.zeros(len(shown))
    for kind, colour in CAUSES.items():
        lengths = np.array([each.get(kind, 0.0) for each in spent])
        label = kind if max(lengths / steps) > _SEEN else None
        axes.barh(range(len(shown)), lengths, left=begin, color=light(colour), height=0.7, label=label)
        begin += lengths
    for row, step in enumerate(steps):
        axes.text(step, row, f"  {digits(step, 4)}", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [_short(outcome, evaluation) for evaluation in shown])
    axes.tick_params(axis="y", labelsize=7.5)
    axes.set(xlabel="time, s (mean over all GPUs)", ylim=(len(shown) - 0.5, -0.5))
    axes.set_xlim(0, 1.1 * max(steps))
    axes.set_title("Where the step of the best layouts goes")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside lower center", ncols=len(CAUSES))
    return figure


@styled
def scaling(outcome: Outcome) -> Figure:
    """The best throughput at each number of GPUs, beside proportional growth from the smallest."""
    best: dict[int, Evaluation] = {}
    for evaluation in outcome.ranked:
        gpus = outcome.layouts[evaluation.number].run.gpus
        if gpus not in best or evaluation.tokens_per_s > best[gpus].tokens_per_s:
            best[gpus] = evaluation
    counts = sorted(best)
    rates = [best[gpus].tokens_per_s for gpus in counts]
    figure = new_figure(3.6)
    axes = figure.subplots()
    ideal = [rates[0] * gpus / counts[0] for gpus in counts]
    axes.plot(counts, ideal, color=light("grey"), linestyle="--", label="in proportion")
    axes.plot(counts, rates, color=light("blue"), marker="o", label="best layout")
    for gpus, rate, proportional in zip(counts, rates, ideal, strict=True):
        axes.annotate(
            f"{100 * rate / proportional:.0f} %", (gpus, rate), textcoords="offset points", xytext=(4, -12),
            fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(counts, [f"{gpus:,}" for gpus in counts])
    axes.set_yticks(rates, [scaled(rate) for rate in rates])
    axes.margins(y=0.12)
    axes.minorticks_off()
    axes.set(xlabel="GPUs", ylabel="tokens/s", title="Throughput over the number of GPUs")
    axes.legend()
    return figure


def _runs(outcome: Outcome) -> Sequence[Any]:
    return [outcome.layouts[evaluation.number].run for evaluation in outcome.ranked]


def _best_by(outcome: Outcome, axes: tuple[int, ...]) -> dict[tuple[str, ...], Evaluation]:
    """The fastest evaluation for each combination of values of some axes."""
    best: dict[tuple[str, ...], Evaluation] = {}
    for evaluation in outcome.ranked:
        key = tuple(label(evaluation.labels[index]) for index in axes)
        if key not in best or evaluation.step_time_s < best[key].step_time_s:
            best[key] = evaluation
    return best


def _sorted(labels: set[str]) -> list[str]:
    """Numbers by size, then words."""
    return sorted(labels, key=lambda text: (0, float(text), "") if _is_number(text) else (1, 0.0, text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _short(outcome: Outcome, evaluation: Evaluation) -> str:
    """The settings in which the layouts shown differ, and the id."""
    shown = outcome.ranked[:_SHOWN]
    words = [
        f"{name} {label(value)}"
        for index, (name, value) in enumerate(zip(axis_names(outcome), evaluation.labels, strict=True))
        if len({label(other.labels[index]) for other in shown}) > 1
    ]
    return " · ".join([*words, f"id {evaluation.number}"])


def _range(line: Sequence[tuple[float, float]], times: Sequence[float]) -> tuple[float, float]:
    """Step times to show: those of the line, and what is not far above it."""
    best, worst = min(times), min(max(times), 1.6 * max(seconds for _, seconds in line))
    margin = max(0.12 * (worst - best), 0.01 * best)
    return best - margin, worst + margin
