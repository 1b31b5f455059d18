"""Images with what a trained network says of them: arrays in, matplotlib Figures out.

Images are uint8 (n, H, W, 3), predictions are of the same images, and names are those of the
classes. `split` says which images they are: "test" or "held-out". `marks` say which image each is,
by its file or index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from s11_fastai.plots.grid import ImageGrid, columns_for, line, only_text, widest

if TYPE_CHECKING:  # it imports torch, which a picture of a curve does without
    from s11_fastai.interpret import Predictions

_SIDE, _SMALL, _TEXT = 1.95, 1.25, 2.7  # inches: an image, a small one, the longest line beside it


def plot_misclassified(
    images: np.ndarray,
    predictions: Predictions,
    names: Sequence[str],
    split: str,
    total: int,
    marks: Sequence[str] = (),
) -> Figure:
    """Up to 25 misclassified images, with the predicted and the actual class of each.

    `total` is how many images of the split are misclassified in all.
    """
    n = len(images)
    if not n:
        return only_text(f"No {split} image was misclassified")
    title = {1: f"The misclassified {split} image", 2: f"Both misclassified {split} images"}.get(
        n, f"All {n} misclassified {split} images"
    )
    if n < total:
        title = f"{n} of {total:,} misclassified {split} images, drawn by seed"
    captions = ["\n".join(said) for said in _said_and_is(predictions, names, _SIDE)]
    return _captioned(title, images, captions, marks, lines=2)


def plot_top_losses(
    images: np.ndarray,
    predictions: Predictions,
    names: Sequence[str],
    split: str,
    marks: Sequence[str] = (),
) -> Figure:
    """Up to 25 images with the highest losses, with the loss and both classes of each."""
    n, right = len(images), predictions.classes == predictions.labels
    if not n:
        return only_text(f"No {split} image was evaluated")
    if n == 1:
        title = f"The highest loss of the {split} images"
        title += ", of a right prediction" if right.any() else ""
    else:
        title = f"The {n} highest losses of the {split} images"
        title += f", {right.sum()} of them of right predictions" if right.any() else ""
    p = predictions.probability(predictions.classes)
    captions = []
    for i, said in enumerate(_said_and_is(predictions, names, _SIDE)):
        words: Sequence[str] = said
        if right[i]:
            words = [line("right: ", names[predictions.classes[i]], f" ({p[i]:.0%})", _SIDE)]
        captions.append("\n".join([f"loss {predictions.losses[i]:.2f}", *words]))
    return _captioned(title, images, captions, marks, lines=3)


def plot_grad_cam(
    images: np.ndarray,
    for_predicted: np.ndarray,
    for_actual: np.ndarray,
    predictions: Predictions,
    names: Sequence[str],
    layer: str,
    marks: Sequence[str] = (),
) -> Figure:
    """Up to 25 images, each beside its Grad-CAM for the predicted class and for the actual one.

    The maps are float (n, h, w), from `interpret.grad_cam`; both of an image share one scale.
    """
    n = len(images)
    if not n:
        return only_text("No misclassified image to explain")
    columns = min(int(np.ceil(np.sqrt(n))), 4)
    title = f"Grad-CAM at {layer}, on logits: where each class is seen"
    title += "\n" if columns < 3 else "; "
    title += "both maps of an image share one scale"
    widths = ([1, 1, 1, 0.15] * columns)[:-1]  # a gap between the trios
    grid = ImageGrid(title, -(-n // columns), widths, side=_SMALL, lines=2, marked=len(marks) > 0)
    p, q = (predictions.probability(c) for c in (predictions.classes, predictions.labels))
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        grid.show(row, 4 * column, image, mark=marks[i] if len(marks) else "")
        top = float(max(for_predicted[i].max(), for_actual[i].max()))
        for k, heat, words, c in (
            (1, for_predicted[i], f"said ({p[i]:.0%})", predictions.classes[i]),
            (2, for_actual[i], f"is ({q[i]:.0%})", predictions.labels[i]),
        ):
            caption = f"{words}\n{line('', names[c], '', _SMALL)}"
            grid.show(row, 4 * column + k, image, caption)
            grid.heat(row, 4 * column + k, image, heat, top)
    return grid.figure


def plot_grad_cam_layers(
    images: np.ndarray,
    maps: Mapping[str, np.ndarray],
    predictions: Predictions,
    names: Sequence[str],
    marks: Sequence[str] = (),
) -> Figure:
    """A row for each image: its Grad-CAM for the predicted class at each layer.

    `maps` are float (n, h, w) by the name of the layer; each is shown on a scale of its own.
    """
    n = len(images)
    if not n:
        return only_text("No misclassified image to explain")
    title = "Grad-CAM for the predicted class, on logits, layer by layer; each map on its own scale"
    grid = ImageGrid(title, n, [1.0] * (len(maps) + 1), side=_SIDE, lines=2, marked=len(marks) > 0)
    for i, said in enumerate(_said_and_is(predictions, names, _SIDE)):
        grid.show(i, 0, images[i], "\n".join(said), marks[i] if len(marks) else "")
        for k, (layer, heat) in enumerate(maps.items(), start=1):
            top = float(heat[i].max())
            grid.show(i, k, images[i], layer if top > 0 else f"{layer}: nothing for it")
            grid.heat(i, k, images[i], heat[i], top)
    return grid.figure


def plot_confused_pairs(
    pairs: Sequence[tuple[int, int, int]],
    examples: Sequence[np.ndarray],
    names: Sequence[str],
    split: str,
    marks: Sequence[Sequence[str]] = (),
) -> Figure:
    """Each pair of classes most often confused: how often, and up to five such images.

    pairs: (actual, predicted, count); examples: for each pair uint8 (m, H, W, 3); marks: theirs.
    """
    if not pairs:
        return only_text(f"No {split} image was misclassified")
    most = max(map(len, examples))
    abreast = min(len(pairs), 1 if most > 2 else 2)  # pairs in a row
    words = [
        (
            line("", names[actual], "", _TEXT),
            line("taken for ", names[predicted], "", _TEXT),
            "once" if count == 1 else f"{count:,} times",
        )
        for actual, predicted, count in pairs
    ]
    text = widest((each for three in words for each in three), _TEXT) / _SMALL
    grid = ImageGrid(
        f"The pairs most often confused among the {split} images",
        -(-len(pairs) // abreast),
        [text, *[1.0] * most] * abreast,
        side=_SMALL,
        marked=len(marks) > 0,
    )
    for i, shown in enumerate(examples):
        row, first = i // abreast, i % abreast * (most + 1)
        grid.write(row, first, words[i])
        for k, image in enumerate(shown):
            grid.show(row, first + 1 + k, image, mark=marks[i][k] if len(marks) else "")
    return grid.figure


def _said_and_is(
    predictions: Predictions, names: Sequence[str], room: float
) -> list[tuple[str, str]]:
    """For each image "said cat (81%)" and "is dog (12%)", each at most `room` inches wide."""
    guesses, labels = predictions.classes, predictions.labels
    p, q = predictions.probability(guesses), predictions.probability(labels)
    return [
        (
            line("said ", names[guesses[i]], f" ({p[i]:.0%})", room),
            line("is ", names[labels[i]], f" ({q[i]:.0%})", room),
        )
        for i in range(len(labels))
    ]


def _captioned(
    title: str, images: np.ndarray, captions: Sequence[str], marks: Sequence[str], lines: int
) -> Figure:
    """Images in rows of up to five, each with its caption."""
    columns = columns_for(len(images))
    rows = -(-len(images) // columns)
    grid = ImageGrid(title, rows, [1.0] * columns, side=_SIDE, lines=lines, marked=len(marks) > 0)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        grid.show(*divmod(i, columns), image, caption, marks[i] if len(marks) else "")
    return grid.figure
