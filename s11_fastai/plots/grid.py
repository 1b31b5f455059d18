"""Images in rows, with captions that fit: the layout of all pictures of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from s11_fastai.plots.letters import fitted, inches
from s11_fastai.plots.style import BLUE, DARK_GREY, TITLE, ShowableFigure, title_width

CAPTION, MARK = 11, 9  # points: what stands above an image, and which one it is, below
_LINE, _GAP, _MARGIN = 0.19, 0.1, 0.12  # inches: a line of a caption, between places, around all


class ImageGrid:
    """A Figure with rows of places for images, under a title.

    A place is `side` inches high and `side` times one of `widths` wide, with room for `lines` of a
    caption above it and, where `marked`, for a mark below. All lie in one Axes, whose units are
    inches from the top left corner: Axes of their own would take matplotlib seconds.
    """

    def __init__(
        self,
        title: str,
        rows: int,
        widths: Sequence[float],
        *,
        side: float,
        lines: int = 0,
        marked: bool = False,
    ) -> None:
        above, below = (_LINE * lines + 0.05 if lines else 0.0), (0.2 if marked else 0.0)
        head = 0.32 * (title.count("\n") + 1) + 0.12
        across = side * sum(widths) + _GAP * (len(widths) - 1)
        pitch = above + side + below + _GAP
        width = max(across + 2 * _MARGIN, title_width(title))
        height = head + rows * pitch - _GAP + _MARGIN
        self.side = side
        self.widths = [side * w for w in widths]
        self.lefts = list(accumulate(self.widths, lambda x, w: x + w + _GAP, initial=0.0))
        self.lefts = [x + (width - across) / 2 for x in self.lefts]
        self.tops = [head + above + row * pitch for row in range(rows)]

        self.figure = ShowableFigure(figsize=(width, height), dpi=150)
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")
        self.figure.suptitle(title, fontsize=TITLE, y=1 - 0.1 / height, va="top")

    def show(
        self, row: int, column: int, image: np.ndarray, caption: str = "", mark: str = ""
    ) -> None:
        """An image, uint8 (H, W, 3), a caption above it and, below it, which one it is."""
        x, y, side = self.lefts[column], self.tops[row], self.side
        self.axes.imshow(image, aspect="auto", extent=self._extent(row, column, image))
        above, below = {"va": "bottom", "size": CAPTION}, {"va": "top", "size": MARK}
        if caption:
            self.axes.text(x + side / 2, y - 0.04, caption, above, ha="center")
        if mark:
            text = fitted(mark, side, MARK)
            self.axes.text(x + side / 2, y + side + 0.03, text, below, ha="center", color=DARK_GREY)

    def heat(self, row: int, column: int, image: np.ndarray, heat: np.ndarray, top: float) -> None:
        """A map, float (h, w), over its image, enlarged smoothly, the more opaque the hotter.

        `top` is the value that is brightest and nearly opaque; where a map is 0, the image is bare.
        """
        strength = np.clip(heat / top, 0, 1) if top > 0 else np.zeros_like(heat)
        self.axes.imshow(
            strength,
            cmap="inferno",
            vmin=0,
            vmax=1,
            alpha=0.8 * strength,
            interpolation="bilinear",
            aspect="auto",
            extent=self._extent(row, column, image),
        )

    def write(self, row: int, column: int, words: Sequence[str]) -> None:
        """Lines of text in place of an image, towards the image on their right."""
        self.axes.text(
            self.lefts[column] + self.widths[column],
            self.tops[row] + self.side / 2,
            "\n".join(words),
            ha="right",
            va="center",
            fontsize=CAPTION,
        )

    def frame(self, row: int, column: int) -> None:
        """Mark one place."""
        corner = self.lefts[column], self.tops[row]
        self.axes.add_patch(
            Rectangle(corner, self.side, self.side, fill=False, ec=BLUE, lw=5, zorder=3)
        )

    def _extent(
        self, row: int, column: int, image: np.ndarray
    ) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of an image in the middle of its place."""
        height, width = (self.side * n / max(image.shape[:2]) for n in image.shape[:2])
        left = self.lefts[column] + (self.side - width) / 2
        top = self.tops[row] + (self.side - height) / 2
        return left, left + width, top + height, top


def columns_for(n: int, most: int = 5) -> int:
    """In how many columns n images stand, so that the last row is as full as it can be."""
    return -(-n // -(-n // most))


def line(before: str, name: str, after: str, room: float) -> str:
    """One line of a caption, at most `room` inches wide: the name is cut where it is too long."""
    left = room - 0.06 - inches(before + after, CAPTION)
    return f"{before}{fitted(name, left, CAPTION)}{after}"


def widest(words: Iterable[str], most: float) -> float:
    """How many inches the widest of some captions takes, at most `most`."""
    return min(max(inches(text, CAPTION) for text in words), most)


def only_text(text: str) -> Figure:
    """A Figure for where there is no image to show."""
    figure = ShowableFigure(figsize=(title_width(text) + 0.6, 1.2), dpi=150)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=TITLE)
    return figure
