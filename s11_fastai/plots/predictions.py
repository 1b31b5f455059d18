"""Pictures of what a trained network says of images: arrays in, Figures out.

Images are uint8 (n, 32, 32, 3), classes and labels integers (n,), names the classes' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s11_fastai.plots.style import BLUE, GREY, ORANGE, figure_with_axes, plain

if TYPE_CHECKING:  # it imports torch, which drawing a curve does without
    from s11_fastai.interpret import Calibration, Predictions

_MOST_NAMES = 40  # classes that still have room for their names


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
    figure, places = _grid(n, all_of_them if n == total else drawn)
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
            f"{_short(names[guess])} ({p:.0%})\nactually {_short(names[label])} ({q:.0%})",
            fontsize=11,
        )
    return figure


def plot_top_losses(
    images: np.ndarray, predictions: Predictions, names: Sequence[str], part: str
) -> Figure:
    """Up to 25 images with the highest losses, the highest first."""
    figure, places = _grid(len(images), f"The {len(images)} highest losses of the {part} images")
    guesses, losses = predictions.classes, predictions.losses
    for i, (axes, image) in enumerate(zip(places, images, strict=True)):
        _show(axes, image)
        guess, label = guesses[i], predictions.labels[i]
        guessed = f"{_short(names[guess])} ({np.exp(predictions.log_probabilities[i, guess]):.0%})"
        axes.set_title(
            f"loss {losses[i]:.2f}\n{guessed}\nactually {_short(names[label])}",
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
    figure = Figure(figsize=(3.5 * columns, 1.42 * rows + 0.8), dpi=150, layout="constrained")
    figure.suptitle(
        f"Grad-CAM at {layer}, on logits: the image, for the predicted class, for the actual one",
        fontsize=16,
    )
    ratios = ([1, 1, 1, 0.3] * columns)[:-1]  # a gap between the trios
    grid = figure.add_gridspec(rows, len(ratios), width_ratios=ratios)
    for i in range(n):
        row, column = divmod(i, columns)
        guess, label = predictions.classes[i], predictions.labels[i]
        for k, (heat, title) in enumerate(
            (
                (None, "image"),
                (for_predicted[i], _short(names[guess], 11)),
                (for_actual[i], f"is {_short(names[label], 10)}"),
            )
        ):
            axes = figure.add_subplot(grid[row, 4 * column + k])
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
    figure = Figure(figsize=(2.0 * (len(maps) + 1), 2.05 * n + 0.9), dpi=150, layout="constrained")
    figure.suptitle("Grad-CAM for the predicted class, layer by layer, on logits", fontsize=16)
    grid = figure.subplots(n, len(maps) + 1, squeeze=False)
    for i, row in enumerate(grid):
        guess, label = predictions.classes[i], predictions.labels[i]
        _show(row[0], images[i])
        row[0].set_title(f"{_short(names[guess])}, is {_short(names[label])}", fontsize=11)
        for axes, (layer, heat) in zip(row[1:], maps.items(), strict=True):
            _show(axes, images[i])
            _overlay(axes, heat[i])
            axes.set_title(layer if heat[i].max() > 0 else f"{layer}: nothing for it", fontsize=11)
    return figure


def plot_confusion(counts: np.ndarray, names: Sequence[str], part: str) -> Figure:
    """Counts and row shares side by side: a row an actual class, a column a predicted one."""
    n = len(names)
    side = min(max(0.62 * n, 3.2), 11)
    figure = Figure(figsize=(2 * side + 2.4, side + 1.6), dpi=150, layout="constrained")
    figure.suptitle(f"Confusion of the {part} images", fontsize=16)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for axes, values, title, form in zip(
        figure.subplots(1, 2),
        (counts, 100 * shares),
        ("images", "% of the actual class"),
        ("{:.0f}", "{:.1f}"),
        strict=True,
    ):
        # Mistakes are few: their shades end where the most frequent one lies.
        wrong = values[~np.eye(n, dtype=bool)]
        axes.imshow(values, cmap="Blues", vmin=0, vmax=max(wrong.max(initial=0), 1e-9) * 1.6)
        axes.set_title(title, fontsize=14)
        _name_ticks(axes, names)
        axes.set_xlabel("predicted", fontsize=13)
        axes.set_ylabel("actual", fontsize=13)
        if n <= 20:
            limit = max(wrong.max(initial=0), 1e-9)
            for (row, column), value in np.ndenumerate(values):
                if value:
                    axes.text(
                        column,
                        row,
                        form.format(value),
                        ha="center",
                        va="center",
                        fontsize=9,
                        color="white" if value > limit else "black",
                    )
    return figure


def plot_per_class(
    precision: np.ndarray, recall: np.ndarray, names: Sequence[str], part: str
) -> Figure:
    """Precision and recall of each class, in percent, the lowest recall on top."""
    order = np.argsort(-np.nan_to_num(recall, nan=-1), kind="stable")
    figure, axes = figure_with_axes(
        f"Precision and recall on the {part} images", "%", "", size=(8, 0.45 * len(names) + 1.8)
    )
    rows = np.arange(len(names))
    for values, name, colour, marker in (
        (precision, "precision: of those called so", BLUE, "o"),
        (recall, "recall: of those that are so", ORANGE, "s"),
    ):
        axes.plot(100 * values[order], rows, marker, color=colour, ms=8, label=name)
    low, high = (100 * choose(precision, recall)[order] for choose in (np.fmin, np.fmax))
    axes.hlines(rows, low, high, color=GREY, zorder=0)
    axes.set_yticks(rows, [_short(names[i], 24) for i in order])
    figure.legend(loc="outside lower center", ncols=2, fontsize=12, frameon=False)
    return figure


def plot_calibration(found: Calibration, part: str) -> Figure:
    """The reliability diagram: accuracy over confidence, and below it how many images."""
    figure = Figure(figsize=(7, 7), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    middles, width = (found.edges[:-1] + found.edges[1:]) / 2, np.diff(found.edges) * 92
    accuracy, confidence = 100 * found.accuracy, 100 * found.confidence
    upper.plot([0, 100], [0, 100], color=GREY, lw=2, ls="--", label="as sure as right")
    upper.bar(100 * middles, np.nan_to_num(accuracy), width, color=BLUE, label="accuracy")
    upper.plot(confidence, accuracy, "o", color=ORANGE, ms=6, label="mean confidence of the bin")
    error = f"expected error {100 * found.error:.1f} points"
    upper.set_title(f"Calibration on the {part} images, {error}", fontsize=15)
    upper.set_ylabel("accuracy, %", fontsize=13)
    upper.legend(fontsize=12, loc="upper left")
    lower.bar(100 * middles, found.count, width, color=GREY)
    lower.set_yscale("symlog", linthresh=10)
    lower.set_xlabel("confidence, %", fontsize=13)
    lower.set_ylabel("images", fontsize=13)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11)
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
            f"{_short(names[actual])} taken for {_short(names[predicted])}\n{images}",
            ha="right",
            va="center",
            fontsize=13,
            transform=row[0].transAxes,
        )
        for axes, image in zip(row[1:], shown, strict=False):
            _show(axes, image)
    return figure


def _grid(n: int, title: str) -> tuple[Figure, list[Axes]]:
    columns = min(n, 5)
    rows = -(-n // columns)
    figure = Figure(figsize=(2.1 * columns, 2.5 * rows + 0.8), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=16, wrap=True)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.axis("off")
    return figure, list(places[:n])


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


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > _MOST_NAMES:
        return
    short = [_short(name) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=90, fontsize=11)
    axes.set_yticks(range(len(names)), short, fontsize=11)


def _short(name: str, most: int = 14) -> str:
    """A folder's name with room for `most` letters, and no formula in it."""
    return plain(name if len(name) <= most else name[: most - 1] + "…")
