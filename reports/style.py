"""One hand for all pictures: colours, type and sizes, on light and dark paper.

Colours are named by what they mean and looked up here only. Their hues are Okabe and Ito's, which people
with any common colour blindness tell apart ("Color Universal Design", 2008); each has a second value for
dark paper. Figures are drawn with the light ones; a page swaps them for CSS variables of the same name, so
that a figure follows the reader's scheme.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Colour(NamedTuple):
    """The same colour on light and on dark paper."""

    light: str
    dark: str


PALETTE: Mapping[str, Colour] = {
    "ink": Colour("#1b2430", "#e8edf2"),  # text that is read
    "muted": Colour("#5d6b7a", "#9fb0c0"),  # text that helps: axes, remarks
    "line": Colour("#d5dce3", "#36424e"),  # rules and grids
    "idle": Colour("#eceff2", "#262f38"),  # where nothing runs
    "paper": Colour("#fffffe", "#12181e"),
    "card": Colour("#f6f8fa", "#1a222a"),
    "black": Colour("#10161d", "#10161d"),  # text on bright colours
    "blue": Colour("#0072b2", "#3f9fdc"),
    "sky": Colour("#56b4e9", "#86cbf2"),
    "green": Colour("#009e73", "#2cc199"),
    "orange": Colour("#e69f00", "#efb434"),
    "red": Colour("#d55e00", "#ee7a2b"),
    "pink": Colour("#cc79a7", "#dd98be"),
    "yellow": Colour("#c9b800", "#f0e442"),
    "grey": Colour("#8a97a4", "#7f8d9a"),
}
BRIGHT = frozenset({"sky", "orange", "yellow", "pink"})
CYCLE = ("blue", "orange", "green", "red", "sky", "pink", "yellow", "grey")
"""Names of colours for things that have no meaning of their own, in the order to take them."""

WORK = {"F": "blue", "B": "green", "I": "sky", "W": "orange"}
WORK_NAMES = {"F": "forward", "B": "backward", "I": "input gradient", "W": "weight gradient"}
AXES = {"tp": "orange", "cp": "sky", "ep": "green", "pp": "pink", "dp": "red"}
OPTIMIZER = "yellow"
MEMORY = {
    "weights": "blue",
    "gradients": "sky",
    "optimizer": OPTIMIZER,
    "activations": "green",
    "buffers": "orange",
}
CAUSES = {
    "compute": "blue",
    "communication": "red",
    "bubble": "grey",
    "jitter": "pink",
    "optimizer": OPTIMIZER,
    "host": "orange",
}
PRODUCTS = {"gemm": "blue", "attention": "orange", "grouped_gemm": "green"}

FONTS = ("DejaVu Sans",)  # matplotlib brings it along, so that files look the same everywhere
PAGE_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
WIDTH_IN = 10.0  # of a figure that fills a page
DPI = 160  # of PNG files


def light(name: str) -> str:
    """The hexadecimal value to draw with. Raises KeyError for a name the palette does not have."""
    return PALETTE[name].light


def ink_on(name: str, opacity: float = 1.0) -> str:
    """What to write with on a bar of that colour, drawn on empty paper with that opacity."""
    if opacity < 0.6:
        return light("ink")
    return light("black" if name in BRIGHT else "paper")


def ramp(count: int) -> list[float]:
    """Opacities that tell ``count`` members of one colour apart, first one full."""
    return [1.0 - 0.62 * index / max(1, count - 1) for index in range(count)]


def rc_params() -> dict[Any, Any]:
    """matplotlib's settings for every figure."""
    ink, muted, line = light("ink"), light("muted"), light("line")
    return {
        "font.family": "sans-serif",
        "font.sans-serif": list(FONTS),
        "font.size": 9.0,
        "text.color": ink,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.titley": 1.0,  # nothing stands above an axes: a title need not look for its place
        "axes.labelcolor": muted,
        "axes.edgecolor": line,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.prop_cycle": _cycler(),
        "grid.color": line,
        "grid.linewidth": 0.6,
        "xtick.color": line,
        "ytick.color": line,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.major.size": 0.0,
        "ytick.major.size": 0.0,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "figure.facecolor": light("paper"),
        "savefig.facecolor": light("paper"),
        "svg.hashsalt": "stepcast",  # equal figures give equal files
        "svg.fonttype": "path",
    }


def _cycler() -> Any:
    from cycler import cycler  # noqa: PLC0415  comes with matplotlib, and is only needed with it

    return cycler(color=[light(name) for name in CYCLE])


def css_variables() -> str:
    """The palette as CSS: ``var(--blue)`` and so on, by the reader's colour scheme; light in print."""
    lights = " ".join(f"--{name}: {colour.light};" for name, colour in PALETTE.items())
    darks = " ".join(f"--{name}: {colour.dark};" for name, colour in PALETTE.items())
    return (
        f":root {{ color-scheme: light dark; {lights} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {darks} }} }}\n"
    )
