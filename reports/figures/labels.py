"""Many short words in a chart, drawn together: as single texts they take most of the time a figure takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgba
from matplotlib.text import Text
from matplotlib.transforms import IdentityTransform


class Label(NamedTuple):
    """A word centred on a point of an axes."""

    x: float
    y: float
    word: str
    size: float  # points
    colour: str


class Labels(Artist):
    """Labels of one axes, which lie inside it and count for nothing in the layout."""

    def __init__(self, axes: Axes, labels: Iterable[Label]) -> None:
        super().__init__()
        self._labels = tuple(labels)
        self.set(zorder=Text.zorder, in_layout=False)
        axes.add_artist(self)

    @property
    def words(self) -> tuple[str, ...]:
        """What is written."""
        return tuple(label.word for label in self._labels)

    def draw(self, renderer: RendererBase) -> None:
        """Set every word with the middle of its digits in the middle of its place."""
        if not self._labels or self.axes is None:
            return
        context = renderer.new_gc()
        places = self.axes.transData.transform([(label.x, label.y) for label in self._labels])
        _, page = renderer.get_canvas_width_height()
        stencils = {size: _stencil(size) for size in {label.size for label in self._labels}}
        extents = {
            (word, size): renderer.get_text_width_height_descent(
                word, stencils[size].get_fontproperties(), False
            )
            for word, size in {(label.word, label.size) for label in self._labels}
        }
        for (x, y), label in zip(places, self._labels, strict=True):
            stencil = stencils[label.size]
            stencil.set_position((x, y))
            context.set_foreground(to_rgba(label.colour), isRGBA=True)
            width, height, descent = extents[label.word, label.size]
            base = y - (height - descent) / 2
            renderer.draw_text(
                context,
                x - width / 2,
                page - base if renderer.flipy() else base,
                label.word,
                stencil.get_fontproperties(),
                0.0,
                ismath=False,
                mtext=stencil,
            )
        context.restore()


def _stencil(size: float) -> Text:
    """Tells a renderer that keeps words as words where their middle is."""
    return Text(fontsize=size, horizontalalignment="center", transform=IdentityTransform())
