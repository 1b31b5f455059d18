"""What all pictures share. Colours are Okabe and Ito's, which the colour-blind tell apart."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8C8C8C"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def figure_with_axes(
    title: str, x: str, y: str, size: tuple[float, float] = (8, 5)
) -> tuple[Figure, Axes]:
    """A Figure of `size` inches with one Axes, its title and the names of both axes."""
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    style_axes(axes, title, x, y)
    return figure, axes


def style_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, names, a faint grid, and sizes that can be read at half size."""
    axes.set_title(title, fontsize=16)
    axes.set_xlabel(x, fontsize=14)
    axes.set_ylabel(y, fontsize=14)
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def highest_loss(train: Sequence[float], valid: Sequence[float]) -> float:
    """The top of a picture of losses.

    Early in a cycle single epochs can lie far above all others; they run out of the picture, so
    that it shows the others.
    """
    return max(*train, min(max(valid), 1.5 * max(train)))


def plain(name: str) -> str:
    """A folder's name as text, where matplotlib would read dollars as formulas."""
    return name.replace("$", r"\$")


def short(name: str, most: int = 14) -> str:
    """A folder's name with room for `most` letters, and no formula in it."""
    return plain(name if len(name) <= most else name[: most - 1] + "…")
