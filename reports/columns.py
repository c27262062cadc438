"""Tables of a screen: numbers are never cut, words give way to them where the screen is narrow."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from rich.table import Table
from rich.text import Text

_FIGURE = re.compile(r"\S+( [/–] \S+| \S{1,8})?")  # a number and its unit, two numbers, or one word
_FEWEST = 12  # columns of a name that has to fold


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], room: int, *, text: Collection[int] = (0, 1)
) -> Table:
    """Columns side by side in ``room`` characters, those in ``text`` flush left, the others flush right.

    Cells of several words fold at blanks, from the last column to the first; the first, which names the
    rows, folds last. What has no room even so is cut at the right edge.
    """
    lines = [tuple(row) for row in rows]
    columns = list(zip(heads, *lines, strict=True))
    widest = [max(map(len, cells)) for cells in columns]
    gap = 2 if sum(widest) + 2 * (len(heads) - 1) <= room else 1
    widths = _widths(columns, widest, room - gap * (len(heads) - 1))
    found = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for index, (head, width) in enumerate(zip(heads, widths, strict=True)):
        found.add_column(
            Text(head), width=width, justify="left" if index in text else "right", overflow="fold"
        )
    for line in lines:
        found.add_row(*map(Text, line))
    return found


def _widths(columns: Sequence[Sequence[str]], widest: Sequence[int], room: int) -> list[int]:
    widths = list(widest)
    for index in reversed(range(len(columns))):
        least = min(widest[0], _FEWEST) if index == 0 else _least(columns[index])
        widths[index] -= min(max(0, sum(widths) - room), max(0, widths[index] - least))
    return widths


def _least(cells: Sequence[str]) -> int:
    """The widest figure or word of a column."""
    head, *rest = cells
    words = [word for cell in rest for word in ([cell] if _FIGURE.fullmatch(cell) else cell.split())]
    return max(map(len, [*head.split(), *words]), default=0)
