"""Training images and what training shows of them: arrays in, matplotlib Figures out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from s11_fastai.plots.style import ShowableFigure, short


def plot_samples(images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Figure:
    """The first five images of each class, a row for each class; at most 20 classes.

    images: uint8 (N, H, W, 3); labels: (N,); names: those of the classes.
    """
    rows = min(len(names), 20)
    figure = ShowableFigure(figsize=(5.4, 0.85 * rows + 0.1), dpi=150, layout="constrained")
    for axes_row, label in zip(figure.subplots(rows, 5, squeeze=False), range(rows), strict=True):
        chosen = images[np.flatnonzero(labels == label)[:5]]
        for axes in axes_row:
            axes.axis("off")
        for axes, image in zip(axes_row, chosen, strict=False):
            axes.imshow(image)
        axes_row[0].axis("on")
        axes_row[0].tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
        axes_row[0].set_frame_on(False)
        axes_row[0].set_ylabel(
            short(names[label]), rotation=0, ha="right", va="center", fontsize=13
        )
    return figure


def plot_augmented(original: np.ndarray, augmented: np.ndarray) -> Figure:
    """One image, uint8 (H, W, 3), and 16 augmented versions of it, uint8 (16, H, W, 3)."""
    figure = ShowableFigure(figsize=(9, 6.4), dpi=150, layout="constrained")
    figure.suptitle("One image and 16 draws of pad-crop, flip and Cutout", fontsize=16)
    grid = figure.add_gridspec(4, 6)
    panels = [grid[1:3, 0:2], *(grid[row, column] for row in range(4) for column in range(2, 6))]
    for place, image in zip(panels, [original, *augmented], strict=True):
        axes = figure.add_subplot(place)
        axes.imshow(image)
        axes.axis("off")
    return figure
