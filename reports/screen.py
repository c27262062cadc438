"""Where text goes: a terminal with colours and bars, or a file, a pipe or NO_COLOR with plain text."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, RenderableType

PLAIN_WIDTH = 100  # columns where no terminal sets a width


def make_console(width: int = PLAIN_WIDTH) -> Console:
    """The console for standard output; ``width`` counts where it is no terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = width
    return console


def is_plain(console: Console) -> bool:
    """Whether to write the facts alone: without colour, bars and boxes."""
    return not console.is_terminal or console.no_color or console.is_dumb_terminal


def show(console: Console, *parts: RenderableType) -> None:
    """Print one part under the other; plain text has no escape codes and no blanks at the ends of lines."""
    if not is_plain(console):
        for part in parts:
            console.print(part)
        return
    page = StringIO()
    plain = Console(
        file=page, width=console.width, highlight=False, markup=False, emoji=False, color_system=None
    )
    for part in parts:
        plain.print(part)
    console.file.write("\n".join(line.rstrip() for line in page.getvalue().split("\n")))
