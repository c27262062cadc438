"""A figure under the house style, and its way into a file or a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from reports.style import DPI, PALETTE, WIDTH_IN, light, rc_params

P = ParamSpec("P")
T = TypeVar("T")
FILES = (".png", ".svg")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Runs a drawing function under the style, whatever the caller's own settings are."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        with mpl.rc_context(rc_params()):
            return draw(*args, **kwargs)

    return drawn


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure, which no window shows and no global list holds."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def bare(axes: Axes) -> None:
    """No frame, ticks or grid: for charts whose bars carry their own numbers."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


@styled
def save(figure: Figure, path: Path) -> None:
    """Write a figure as .png, .svg or .pdf; equal figures give equal files.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"cannot draw into {path.name!r}: the name must end in .png, .svg or .pdf")
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}[suffix]
    figure.savefig(path, dpi=DPI, metadata=metadata)


def save_all(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """Write NAME.png and NAME.svg for each figure into a folder, which is made if it is not there.

    Raises OSError naming what cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}{suffix}": drawn for name, drawn in figures.items() for suffix in FILES}
    for path, drawn in paths.items():
        save(drawn, path)
    return list(paths)


@styled
def inline_svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an element of an HTML page: no background, colours and fonts those of the page.

    Args:
        figure: drawn with colours of the palette.
        name: unique on the page; every id inside begins with it.
        title: what it shows, for those who do not see it.
    """
    stream = StringIO()
    figure.set(dpi=DPI, facecolor="none")
    with mpl.rc_context({"svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*|'DejaVu Sans'[^;\"]*", _page_font, svg)
    svg = re.sub("|".join(_VARIABLES), lambda found: _VARIABLES[found[0]], svg)
    share = min(1.0, figure.get_figwidth() / WIDTH_IN)  # of the page, so that all type is of one size
    head = f'<svg role="img" aria-label="{title}" class="figure" style="--share: {share:.3g}" '
    return re.sub(r"<svg (width|height)=\"[^\"]*\" (width|height)=\"[^\"]*\" ", head, svg, count=1)


_VARIABLES = {light(name): f"var(--{name})" for name in PALETTE}


def _page_font(found: re.Match[str]) -> str:
    return "font-family: inherit" if found[0].startswith("font-family") else "inherit"
