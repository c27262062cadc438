"""Where text goes: a terminal with colours and bars, or a file, a pipe or NO_COLOR with plain text."""

from __future__ import annotations

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
    """Print one part under the other; plain text without blanks at the ends of lines."""
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    text = captured.get()
    if is_plain(console):
        text = "\n".join(line.rstrip() for line in text.split("\n"))
    console.file.write(text)
