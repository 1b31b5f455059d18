"""Images with what a trained network says of them: arrays in, matplotlib Figures out.

Images are uint8 (n, H, W, 3), predictions are of the same images, and names are those of the
classes. `split` says which images they are: "test" or "held-out".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s11_fastai.plots.style import ShowableFigure, short

if TYPE_CHECKING:  # it imports torch, which a picture of a curve does without
    from s11_fastai.interpret import Predictions


def plot_misclassified(
    images: np.ndarray, predictions: Predictions, names: Sequence[str], split: str, total: int
) -> Figure:
    """Up to 25 misclassified images, with the predicted and the actual class of each.

    `total` is how many images of the split are misclassified in all.
    """
    n = len(images)
    if not n:
        return _only_text(f"No {split} image was misclassified")
    if n < total:
        title = f"{n} of {total:,} misclassified {split} images, drawn by seed"
    else:
        title = (
            f"All {n} misclassified {split} images" if n > 1 else f"The misclassified {split} image"
        )
    figure, places = _grid(n, title, lines=2)
    guesses, labels = predictions.classes, predictions.labels
    p, q = predictions.probability(guesses), predictions.probability(labels)
    for i, (axes, image) in enumerate(zip(places, images, strict=True)):
        _show(axes, image)
        guessed, actual = short(names[guesses[i]]), short(names[labels[i]])
        axes.set_title(f"{guessed} ({p[i]:.0%})\nactually {actual} ({q[i]:.0%})", fontsize=11)
    return figure


def plot_top_losses(
    images: np.ndarray, predictions: Predictions, names: Sequence[str], split: str
) -> Figure:
    """Up to 25 images with the highest losses, with the loss and both classes of each."""
    title = f"The {len(images)} highest losses of the {split} images"
    figure, places = _grid(len(images), title, lines=3)
    guesses, labels, losses = predictions.classes, predictions.labels, predictions.losses
    p = predictions.probability(guesses)
    for i, (axes, image) in enumerate(zip(places, images, strict=True)):
        _show(axes, image)
        guessed, actual = short(names[guesses[i]]), short(names[labels[i]])
        axes.set_title(
            f"loss {losses[i]:.2f}\n{guessed} ({p[i]:.0%})\nactually {actual}", fontsize=11
        )
    return figure


def plot_grad_cam(
    images: np.ndarray,
    for_predicted: np.ndarray,
    for_actual: np.ndarray,
    predictions: Predictions,
    names: Sequence[str],
    layer: str,
) -> Figure:
    """Up to 25 images, each beside its Grad-CAM for the predicted class and for the actual one.

    The maps are float (n, h, w), from `interpret.grad_cam`.
    """
    n = len(images)
    if not n:
        return _only_text("No misclassified image to explain")
    columns = min(n, 5)
    rows = -(-n // columns)
    title = f"Grad-CAM at {layer}, on logits: image, for the predicted class, for the actual one"
    widths = ([1, 1, 1, 0.3] * columns)[:-1]  # a gap between the trios
    figure, places = _places(title, rows, widths, side=1.0, above=0.25)
    for axes in places.ravel():
        axes.axis("off")
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        guessed = short(names[predictions.classes[i]], 11)
        actual = f"is {short(names[predictions.labels[i]], 10)}"
        trio = ((None, "image"), (for_predicted[i], guessed), (for_actual[i], actual))
        for axes, (heat, caption) in zip(places[row, 4 * column :], trio, strict=False):
            _show(axes, image, heat)
            axes.set_title(caption, fontsize=11)
    return figure


def plot_grad_cam_layers(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    predictions: Predictions,
    names: Sequence[str],
) -> Figure:
    """A row for each image: its Grad-CAM for the predicted class at each layer.

    `maps` are float (n, h, w) by the name of the layer.
    """
    n = len(images)
    if not n:
        return _only_text("No misclassified image to explain")
    title = "Grad-CAM for the predicted class, layer by layer, on logits"
    figure, grid = _places(title, n, [1.0] * (len(maps) + 1), side=1.95, above=0.22)
    for i, row in enumerate(grid):
        guess, label = predictions.classes[i], predictions.labels[i]
        _show(row[0], images[i])
        row[0].set_title(f"{short(names[guess])}, is {short(names[label])}", fontsize=11)
        for axes, (layer, heat) in zip(row[1:], maps.items(), strict=True):
            _show(axes, images[i], heat[i])
            axes.set_title(layer if heat[i].max() > 0 else f"{layer}: nothing for it", fontsize=11)
    return figure


def plot_confused_pairs(
    pairs: Sequence[tuple[int, int, int]],
    examples: Sequence[np.ndarray],
    names: Sequence[str],
    split: str,
) -> Figure:
    """A row for each pair of classes most often confused: how often, and up to five such images.

    pairs: (actual, predicted, count); examples: for each pair uint8 (m, H, W, 3).
    """
    if not pairs:
        return _only_text(f"No {split} image was misclassified")
    figure = ShowableFigure(figsize=(9, 1.15 * len(pairs) + 0.8), dpi=150, layout="constrained")
    figure.suptitle(f"The pairs most often confused among the {split} images", fontsize=16)
    grid = figure.subplots(len(pairs), 6, squeeze=False, width_ratios=[2.6, 1, 1, 1, 1, 1])
    for row, (actual, predicted, count), shown in zip(grid, pairs, examples, strict=True):
        for axes in row:
            axes.axis("off")
        taken_for = f"{short(names[actual])} taken for {short(names[predicted])}"
        images = "1 image" if count == 1 else f"{count} images"
        _right_aligned(row[0], f"{taken_for}\n{images}")
        for axes, image in zip(row[1:], shown, strict=False):
            _show(axes, image)
    return figure


def _grid(n: int, title: str, lines: int) -> tuple[Figure, list[Axes]]:
    """Places for n images, five a row, with room for some lines of text above each."""
    columns = min(n, 5)
    rows = -(-n // columns)
    figure, places = _places(title, rows, [1.0] * columns, side=1.95, above=0.2 * lines)
    for axes in places.ravel():
        axes.axis("off")
    return figure, list(places.ravel()[:n])


def _places(
    title: str, rows: int, widths: Sequence[float], side: float, above: float
) -> tuple[Figure, np.ndarray]:
    """A Figure with rows of square places, `side` inches wide at width 1, `above` inches apart.

    It is laid out by hand: matplotlib's own layout takes seconds for so many places.
    """
    gap, head = 0.07, 0.5
    width = side * sum(widths) + gap * (len(widths) - 1) + 0.2
    height = rows * (side + above + gap) + head
    width = max(width, 0.13 * len(title))  # as wide as its title
    figure = ShowableFigure(figsize=(width, height), dpi=150)
    figure.suptitle(title, fontsize=16, y=1 - 0.1 / height, va="top")
    layout = {
        "left": 0.1 / width,
        "right": 1 - 0.1 / width,
        "bottom": gap / height,
        "top": 1 - (head + above) / height,
        "wspace": gap * len(widths) / (side * sum(widths)),
        "hspace": (above + gap) / side,
    }
    places = figure.subplots(
        rows, len(widths), squeeze=False, width_ratios=widths, gridspec_kw=layout
    )
    return figure, places


def _only_text(text: str) -> Figure:
    figure = ShowableFigure(figsize=(8, 2), dpi=150)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=16)
    return figure


def _right_aligned(axes: Axes, text: str) -> None:
    axes.text(1, 0.5, text, ha="right", va="center", fontsize=13, transform=axes.transAxes)


def _show(axes: Axes, image: np.ndarray, heat: np.ndarray | None = None) -> None:
    """An image, and over it a map, enlarged smoothly, whose own highest value is the brightest."""
    axes.imshow(image)
    axes.axis("off")
    if heat is None:
        return
    height, width = image.shape[:2]
    top = float(heat.max())
    axes.imshow(
        heat / top if top > 0 else heat,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=0.55,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear",
    )
