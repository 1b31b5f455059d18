"""Images with what a trained network says of them: arrays in, matplotlib Figures out.

Images are uint8 (n, 32, 32, 3), classes and labels integers (n,), names the classes' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s11_fastai.plots.style import short

if TYPE_CHECKING:  # it imports torch, which drawing a curve does without
    from s11_fastai.interpret import Predictions


def plot_misclassified(
    images: np.ndarray, predictions: Predictions, names: Sequence[str], part: str, total: int
) -> Figure:
    """Up to 25 misclassified images, with the predicted and the actual class.

    `predictions` are those of the images; `total` is how many were misclassified in all.
    """
    n = len(images)
    if not n:
        return _nothing(f"No {part} image was misclassified")
    drawn = f"{n} of {total:,} misclassified {part} images, drawn by seed"
    all_of_them = (
        f"All {n} misclassified {part} images" if n > 1 else f"The misclassified {part} image"
    )
    figure, places = _grid(n, all_of_them if n == total else drawn, lines=2)
    guesses = predictions.classes
    captions = zip(
        guesses,
        predictions.probability(guesses),
        predictions.labels,
        predictions.probability(predictions.labels),
        strict=True,
    )
    for axes, image, (guess, p, label, q) in zip(places, images, captions, strict=True):
        _show(axes, image)
        axes.set_title(
            f"{short(names[guess])} ({p:.0%})\nactually {short(names[label])} ({q:.0%})",
            fontsize=11,
        )
    return figure


def plot_top_losses(
    images: np.ndarray, predictions: Predictions, names: Sequence[str], part: str
) -> Figure:
    """Up to 25 images with the highest losses, the highest first."""
    title = f"The {len(images)} highest losses of the {part} images"
    figure, places = _grid(len(images), title, lines=3)
    guesses, losses = predictions.classes, predictions.losses
    for i, (axes, image) in enumerate(zip(places, images, strict=True)):
        _show(axes, image)
        guess, label = guesses[i], predictions.labels[i]
        guessed = f"{short(names[guess])} ({np.exp(predictions.log_probabilities[i, guess]):.0%})"
        axes.set_title(
            f"loss {losses[i]:.2f}\n{guessed}\nactually {short(names[label])}",
            fontsize=11,
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
        return _nothing("No misclassified image to explain")
    columns = min(n, 5)
    rows = -(-n // columns)
    title = f"Grad-CAM at {layer}, on logits: image, for the predicted class, for the actual one"
    widths = ([1, 1, 1, 0.3] * columns)[:-1]  # a gap between the trios
    figure, places = _places(title, rows, widths, side=1.0, above=0.25)
    for axes in places.ravel():
        axes.axis("off")
    for i in range(n):
        row, column = divmod(i, columns)
        guess, label = predictions.classes[i], predictions.labels[i]
        for k, (heat, title) in enumerate(
            (
                (None, "image"),
                (for_predicted[i], short(names[guess], 11)),
                (for_actual[i], f"is {short(names[label], 10)}"),
            )
        ):
            axes = places[row, 4 * column + k]
            _show(axes, images[i])
            if heat is not None:
                _overlay(axes, heat)
            axes.set_title(title, fontsize=11)
    return figure


def plot_grad_cam_layers(
    images: np.ndarray, maps: dict[str, np.ndarray], predictions: Predictions, names: Sequence[str]
) -> Figure:
    """Images, a row each, and their Grad-CAM for the predicted class through the layers."""
    n = len(images)
    if not n:
        return _nothing("No misclassified image to explain")
    title = "Grad-CAM for the predicted class, layer by layer, on logits"
    figure, grid = _places(title, n, [1.0] * (len(maps) + 1), side=1.95, above=0.22)
    for i, row in enumerate(grid):
        guess, label = predictions.classes[i], predictions.labels[i]
        _show(row[0], images[i])
        row[0].set_title(f"{short(names[guess])}, is {short(names[label])}", fontsize=11)
        for axes, (layer, heat) in zip(row[1:], maps.items(), strict=True):
            _show(axes, images[i])
            _overlay(axes, heat[i])
            axes.set_title(layer if heat[i].max() > 0 else f"{layer}: nothing for it", fontsize=11)
    return figure


def plot_confused_pairs(
    pairs: Sequence[tuple[int, int, int]],
    examples: Sequence[np.ndarray],
    names: Sequence[str],
    part: str,
) -> Figure:
    """A row for each pair most often confused: how often, and up to five such images.

    pairs: (actual, predicted, count); examples: for each pair uint8 (m, 32, 32, 3).
    """
    if not pairs:
        return _nothing(f"No {part} image was misclassified")
    figure = Figure(figsize=(9, 1.15 * len(pairs) + 0.8), dpi=150, layout="constrained")
    figure.suptitle(f"The pairs most often confused among the {part} images", fontsize=16)
    grid = figure.subplots(len(pairs), 6, squeeze=False, width_ratios=[2.6, 1, 1, 1, 1, 1])
    for row, (actual, predicted, count), shown in zip(grid, pairs, examples, strict=True):
        for axes in row:
            axes.axis("off")
        images = "1 image" if count == 1 else f"{count} images"
        row[0].text(
            1,
            0.5,
            f"{short(names[actual])} taken for {short(names[predicted])}\n{images}",
            ha="right",
            va="center",
            fontsize=13,
            transform=row[0].transAxes,
        )
        for axes, image in zip(row[1:], shown, strict=False):
            _show(axes, image)
    return figure


def _grid(n: int, title: str, lines: int) -> tuple[Figure, list[Axes]]:
    """Places for n images, five a row, each with room for some lines above it."""
    columns = min(n, 5)
    rows = -(-n // columns)
    figure, places = _places(title, rows, [1.0] * columns, side=1.95, above=0.2 * lines)
    for axes in places.ravel():
        axes.axis("off")
    return figure, list(places.ravel()[:n])


def _places(
    title: str, rows: int, widths: Sequence[float], side: float, above: float
) -> tuple[Figure, np.ndarray]:
    """A Figure with rows of square places, `side` inches wide at width 1, with room `above` each.

    Laid out by hand: matplotlib's own layout takes seconds for so many places.
    """
    gap, head = 0.07, 0.5
    width = side * sum(widths) + gap * (len(widths) - 1) + 0.2
    height = rows * (side + above + gap) + head
    width = max(width, 0.13 * len(title))  # as wide as its title
    figure = Figure(figsize=(width, height), dpi=150)
    figure.suptitle(title, fontsize=16, y=1 - 0.1 / height, va="top")
    places = figure.subplots(
        rows,
        len(widths),
        squeeze=False,
        width_ratios=widths,
        gridspec_kw={
            "left": 0.1 / width,
            "right": 1 - 0.1 / width,
            "bottom": gap / height,
            "top": 1 - (head + above) / height,
            "wspace": gap * len(widths) / (side * sum(widths)),
            "hspace": (above + gap) / side,
        },
    )
    return figure, places


def _nothing(text: str) -> Figure:
    figure = Figure(figsize=(8, 2), dpi=150)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=16)
    return figure


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.axis("off")


def _overlay(axes: Axes, heat: np.ndarray) -> None:
    """A map over the image, enlarged smoothly, its own highest value the brightest."""
    top = float(heat.max())
    axes.imshow(
        heat / top if top > 0 else heat,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=0.55,
        extent=(-0.5, 31.5, 31.5, -0.5),
        interpolation="bilinear",
    )
