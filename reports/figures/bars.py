"""Many bars at once: as single patches they take most of the time a figure takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from reports.style import light

Box: TypeAlias = tuple[float, float, float, float]  # left, right, bottom, top, in data


def boxes(axes: Axes, found: Sequence[Box], colour: str, shade: float = 1.0) -> PathPatch:
    """Boxes of one colour as one shape, which leaves the limits of the axes alone."""
    patch = PathPatch(_outline(found), facecolor=light(colour), alpha=shade, linewidth=0, snap=True)
    axes.add_artist(patch)
    return patch


def _outline(found: Sequence[Box]) -> Path:
    left, right, bottom, top = np.array(found, dtype=float).reshape(-1, 4).T
    x = np.stack((left, right, right, left, left), axis=1)
    y = np.stack((bottom, bottom, top, top, bottom), axis=1)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(np.stack((x, y), axis=2).reshape(-1, 2), np.tile(codes, len(found)))


def hanging_bars(axes: Axes, ends: Sequence[float], colours: Sequence[str], height: float) -> None:
    """Rows from 1 down, each a bar from one end to the next, hung from the one above by a thin line."""
    rows = range(1, len(ends))
    lefts, lengths = zip(*((min(pair), max(pair) - min(pair)) for pair in pairwise(ends)), strict=True)
    axes.barh(rows, lengths, left=lefts, color=[light(colour) for colour in colours], height=height)
    tops, bottoms = ([row + reach for row in rows] for reach in (-height / 2, 1 + height / 2))
    axes.vlines(ends[1:], tops, bottoms, color=light("muted"), linewidth=0.6)
