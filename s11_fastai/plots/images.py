"""Training images and what training shows of them: arrays in, matplotlib Figures out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from s11_fastai.plots.grid import ImageGrid, line, widest

_MOST_CLASSES = 20
_SIDE, _TEXT = 1.0, 2.2  # inches: an image, the longest name beside it


def plot_samples(
    images: np.ndarray, labels: np.ndarray, names: Sequence[str], marks: Sequence[str] = ()
) -> Figure:
    """The first five images of each class, a row for each class; at most 20 classes.

    images: uint8 (N, H, W, 3); labels: (N,); names: those of the classes; marks: those of the
    images.
    """
    rows = min(len(names), _MOST_CLASSES)
    title = "Training images, the first of each class"
    if rows < len(names):
        title = f"Training images of {rows} of the {len(names)} classes"
    columns = 1 if rows <= 5 else 2  # of classes
    half = -(-rows // columns)
    shown = [line("", name, "", _TEXT) for name in names[:rows]]
    widths = [widest(shown, _TEXT) / _SIDE, *[1.0] * 5] * columns
    grid = ImageGrid(title, half, widths, side=_SIDE, marked=len(marks) > 0)
    for label in range(rows):
        column, row = divmod(label, half)
        grid.write(row, 6 * column, [shown[label]])
        for k, i in enumerate(np.flatnonzero(labels == label)[:5].tolist(), start=1):
            grid.show(row, 6 * column + k, images[i], mark=marks[i] if len(marks) else "")
    return grid.figure


def plot_augmented(original: np.ndarray, augmented: np.ndarray, how: str, mark: str) -> Figure:
    """One image, uint8 (H, W, 3), and augmented versions of it, uint8 (n, H, W, 3), one an epoch.

    `how` says what augments them, `mark` which image it is.
    """
    title = f"Training image {mark} as its first epochs show it: {how}"
    columns = 6
    rows = -(-(len(augmented) + 1) // columns)
    grid = ImageGrid(title, rows, [1.0] * columns, side=1.4, lines=1)
    grid.show(0, 0, original, "original")
    grid.frame(0, 0)
    for epoch, image in enumerate(augmented, start=1):
        grid.show(*divmod(epoch, columns), image, f"epoch {epoch}")
    return grid.figure
