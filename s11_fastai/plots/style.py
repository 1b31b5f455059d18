"""What all pictures share. The colours are Okabe and Ito's, safe for the colour-blind."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


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


def figure_with_axes(
    title: str, x: str, y: str, size: tuple[float, float] = (8, 5)
) -> tuple[Figure, Axes]:
    """A Figure of `size` inches with one Axes, its title and the names of both axes."""
    figure = ShowableFigure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    style_axes(axes, title, x, y)
    return figure, axes


def style_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, names, a faint grid, and letters that can be read at half size."""
    axes.set_title(title, fontsize=16)
    axes.set_xlabel(x, fontsize=14)
    axes.set_ylabel(y, fontsize=14)
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def plain(name: str) -> str:
    """The name of a class or a run as text: matplotlib would read dollars as formulas."""
    return name.replace("$", r"\$")


def short(name: str, most: int = 14) -> str:
    """The same, cut to at most `most` letters."""
    return plain(name if len(name) <= most else name[: most - 1] + "…")
