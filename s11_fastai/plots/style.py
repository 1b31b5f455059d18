"""What all pictures share. The colours are Okabe and Ito's, safe for the colour-blind."""

import io
from pathlib import PurePath

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from s11_fastai.plots.letters import give_fonts, inches, without_glyph_warnings

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, DARK_GREY = "#8C8C8C", "#595959"  # for lines and for letters
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TITLE = 16  # points


class ShowableFigure(Figure):
    """A Figure that pyplot does not hold, and that can be shown at a prompt all the same."""

    def show(self, warn: bool = True) -> None:
        """Show it in a window, as pyplot's figures are, where the backend has windows."""
        if self.canvas.manager is None:
            import matplotlib.pyplot as plt

            other = plt.figure()  # so that the backend is chosen, and gives its kind of canvas
            plt.close(other)
            type(other.canvas).new_manager(self, other.number)  # keeps itself in the canvas
        super().show(warn)

    def draw(self, renderer: RendererBase) -> None:
        """As matplotlib draws it, with fonts for letters that its own lacks."""
        give_fonts(self)
        with without_glyph_warnings():
            super().draw(renderer)


def figure_with_axes(
    title: str, x: str, y: str, size: tuple[float, float] = (8, 5)
) -> tuple[Figure, Axes]:
    """A Figure of `size` inches with one Axes, its title and the names of both axes."""
    figure = ShowableFigure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    style_axes(axes, title, x, y)
    return figure, axes


def encoded(figure: Figure, name: str | PurePath) -> bytes:
    """A picture as the bytes of a file, in the format that the file's name ends with."""
    file = io.BytesIO()
    figure.savefig(file, format=PurePath(name).suffix[1:].lower())
    return file.getvalue()


def style_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, names, a faint grid, and letters that can be read at half size."""
    axes.set_title(title, fontsize=TITLE)
    axes.set_xlabel(x, fontsize=14)
    axes.set_ylabel(y, fontsize=14)
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def title_width(title: str) -> float:
    """How many inches a figure with this title takes."""
    return max(inches(line, TITLE) for line in title.split("\n")) * 1.03 + 0.3
