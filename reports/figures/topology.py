"""The machine as a tower of levels: who talks on which, and how busy links are over the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from reports.figures.canvas import bare, new_figure, styled
from reports.quantities import digits, percent, seconds
from reports.style import AXES, light
from simulator.details import Counter, GroupShape
from simulator.result import Result
from simulator.spec.cluster import ClusterSpec

MOST_GPUS = 18  # drawn in a domain
BINS = 240  # of the step, for the course of link use
COURSES = {"nic": "NICs", "scale-up": "Scale-up ports"}  # by the beginning of counters' names
UPLINKS = "uplinks to "  # and the level
DOMAIN, NODE = "scale-up domain", "node"
Floats: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]
_WIDTH = 52.0  # of the boxes, in hundredths of the drawing
_RUNGS = 8


class _Level(NamedTuple):
    name: str
    facts: str
    reach: int  # GPUs below one of its switches


@styled
def topology(result: Result, cluster: ClusterSpec) -> Figure:
    """Levels from the GPU up, the parallel axes that use each, and link use over the step.

    Raises ValueError for a result without details.
    """
    if result.details is None:
        raise ValueError("the result has no links to draw: simulate(run, timeline=True) keeps them")
    levels = _levels(cluster, result.world_size)
    kept = result.details.counters
    uplinks = dict.fromkeys(c.name.rpartition(" ")[0] for c in kept if c.name.startswith(UPLINKS))
    titles = COURSES | {name: f"U{name.removeprefix('u')}" for name in uplinks}
    courses = [
        (title, found)
        for kind, title in titles.items()
        if (found := [c for c in kept if c.name.startswith(f"{kind} ")])
    ]
    tower_in = 0.5 + 0.52 * (len(levels) + 1)
    figure = new_figure(tower_in + 1.9 * len(courses))
    heights = (tower_in, *(1.9 for _ in courses))
    tower, *below = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (title, counters) in zip(below, courses, strict=True):
        _course(axes, title, counters, result.step_time_s)
    _tower(tower, levels, cluster, result)
    return figure


def _levels(cluster: ClusterSpec, gpus: int) -> list[_Level]:
    """From the scale-up domain to the first switch level that joins all of the job's nodes."""
    up, out = cluster.scale_up, cluster.scale_out
    each = "chip" if up.topology == "torus" else "GPU"
    rate = f"{digits(up.link.bandwidth / 1e9)} GB/s per {each} and direction"
    shape = "a torus of " if up.topology == "torus" else ""
    levels = [_Level(DOMAIN, f"{up.domain_size:,} {each}s on {shape}{up.link.name}, {rate}", up.domain_size)]
    if up.domain_size < cluster.gpus_per_node:
        levels.append(_Level(NODE, f"{cluster.gpus_per_node} GPUs", cluster.gpus_per_node))
    for tier in out.tiers:
        if gpus <= levels[-1].reach:
            break
        size = f"{tier.nodes:,} nodes" if tier.nodes else "all nodes"
        over = f", oversubscribed {tier.oversubscription:g} : 1" if tier.oversubscription > 1 else ""
        latency = f", {seconds(tier.latency_s)}" if tier.latency_s else ""
        reach = tier.nodes * cluster.gpus_per_node if tier.nodes else gpus
        levels.append(_Level(tier.name, f"{size}{over}{latency}", reach))
    return levels


def _place(group: GroupShape) -> str:
    """The level on which the farthest ranks of a group meet."""
    if group.domains == 1:
        return DOMAIN
    return NODE if group.nodes == 1 else group.tier


def _tower(axes: Axes, levels: Sequence[_Level], cluster: ClusterSpec, result: Result) -> None:
    """Boxes from the GPUs up; to the right of each the axes whose farthest ranks meet there."""
    _gpus(axes, cluster, min(result.world_size, cluster.scale_up.domain_size))
    for row, level in enumerate(levels, start=1):
        _box(axes, row, f"{level.name}: {level.facts}")
        if row < len(levels):
            _rungs(axes, row)
        chips = [axis for axis, group in _groups(result).items() if _place(group) == level.name]
        for index, axis in enumerate(chips):
            _chip(axes, row, index, len(chips), axis, result)
    if len(levels) > 1:
        out = cluster.scale_out
        total = f"{out.nics_per_node} × {digits(out.link.bandwidth / 1e9)} GB/s per node ({out.link.name})"
        row = 1 + sum(level.reach <= cluster.gpus_per_node for level in levels[1:])
        axes.text(_WIDTH + 1, row + 0.42, f"NICs: {total}", va="center", fontsize=8, color=light("muted"))
    axes.set(xlim=(0, 100), ylim=(-0.45, len(levels) + 0.62), xticks=[], yticks=[])
    bare(axes)


def _groups(result: Result) -> Mapping[str, GroupShape]:
    return result.details.groups if result.details else {}


def _gpus(axes: Axes, cluster: ClusterSpec, count: int) -> None:
    drawn = min(count, MOST_GPUS)
    step = _WIDTH / drawn
    side = min(0.8 * step, 3.4)
    middles = [(index + 0.5) * step for index in range(drawn)]
    style = "round,pad=0,rounding_size=0.12"
    boxes = [FancyBboxPatch((x - side / 2, -0.25), side, 0.5, boxstyle=style) for x in middles]
    axes.add_collection(PatchCollection(boxes, facecolor=light("blue"), linewidth=0), autolim=False)
    axes.vlines(middles, 0.25, 0.72, color=light("grey"), linewidth=1)
    more = f", {drawn} drawn" if drawn < count else ""
    name = cluster.device.title or cluster.device.name
    axes.text(_WIDTH + 1, 0, f"{count} × {name}{more}", va="center", fontsize=8, color=light("muted"))


def _box(axes: Axes, row: int, text: str) -> None:
    style = "round,pad=0,rounding_size=0.15"
    axes.add_patch(
        FancyBboxPatch(
            (0, row - 0.28), _WIDTH, 0.56, boxstyle=style, facecolor=light("card"), edgecolor=light("grey")
        )
    )
    axes.text(_WIDTH / 2, row, text, ha="center", va="center", fontsize=8)


def _rungs(axes: Axes, row: int) -> None:
    places = [(index + 0.5) * _WIDTH / _RUNGS for index in range(_RUNGS)]
    axes.vlines(places, row + 0.28, row + 0.72, color=light("grey"), linewidth=1)


def _chip(axes: Axes, row: int, index: int, count: int, axis: str, result: Result) -> None:
    """An axis, its size, and its time."""
    details = result.details
    if details is None:
        return
    y = row + 0.2 * (count - 1) - 0.4 * index
    use = details.communication.get(axis)
    time = f"{seconds(use.total_s)} per step, {seconds(use.exposed_s)} exposed" if use else "no messages"
    axes.scatter(_WIDTH + 2.2, y, s=42, color=light(AXES[axis]), marker="s", linewidth=0)
    axes.text(
        _WIDTH + 4, y, f"{axis} {details.groups[axis].ranks}", va="center", fontweight="bold", fontsize=8.5
    )
    axes.text(_WIDTH + 12, y, time, va="center", fontsize=8.5)


def _course(axes: Axes, title: str, links: Sequence[Counter], step_s: float) -> None:
    """Mean use of links over all stages."""
    edges = np.linspace(0.0, step_s, BINS + 1)
    for number, name in enumerate(sorted({counter.name for counter in links}, reverse=True)):
        counters = [counter for counter in links if counter.name == name]
        carried = sum((_binned(counter, edges, step_s) for counter in counters), np.zeros(BINS))
        share = 100 * carried / sum(counter.capacity for counter in counters)
        label = f"{name.rpartition(' ')[2]}: {percent(float(share.mean()) / 100)} on average"
        if number:
            axes.stairs(share, edges, color=light("ink"), linewidth=0.9, label=label)
        else:
            axes.stairs(share, edges, color=light("sky"), fill=True, label=label)
    axes.set(xlim=(0, step_s), ylim=(0, 104), xlabel="time, s", ylabel="use, %")
    axes.set_title(f"{title}, mean over the stages")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)


def _binned(counter: Counter, edges: Floats, step_s: float) -> Floats:
    """The mean rate in each bin."""
    times = np.array([*counter.times_s, step_s])
    moved = np.concatenate(([0.0], np.cumsum(np.diff(times) * np.array(counter.values))))
    return np.asarray(np.diff(np.interp(edges, times, moved)) / np.diff(edges), dtype=float)
