"""Figures over all predictions: arrays in, matplotlib Figures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s11_fastai.plots.style import BLUE, GREY, ORANGE, ShowableFigure, figure_with_axes, short

if TYPE_CHECKING:  # it imports torch, which a picture of a curve does without
    from s11_fastai.interpret import Calibration

# With how many classes there is still room for their names, and for a number in each cell.
_MOST_NAMES, _MOST_NUMBERS = 40, 20


def plot_confusion(counts: np.ndarray, names: Sequence[str], split: str) -> Figure:
    """Counts, int (C, C), beside their shares: a row an actual class, a column a predicted one.

    `split` says which images were counted: "test" or "held-out".
    """
    side = min(max(0.62 * len(names), 3.2), 11)
    figure = ShowableFigure(figsize=(2 * side + 2.4, side + 1.6), dpi=150, layout="constrained")
    figure.suptitle(f"Confusion of the {split} images", fontsize=16)
    shares = 100 * (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    left, right = figure.subplots(1, 2)
    _matrix(left, counts, names, "{:.0f}")
    left.set_title("images", fontsize=14)
    _matrix(right, shares, names, "{:.1f}")
    right.set_title("% of the actual class", fontsize=14)
    return figure


def plot_per_class(
    precision: np.ndarray, recall: np.ndarray, names: Sequence[str], split: str
) -> Figure:
    """Precision and recall, fractions (C,), of each class in percent, the lowest recall on top."""
    order = np.argsort(-np.nan_to_num(recall, nan=-1), kind="stable")
    figure, axes = figure_with_axes(
        f"Precision and recall on the {split} images", "%", "", size=(8, 0.45 * len(names) + 1.8)
    )
    rows = np.arange(len(names))
    for values, name, colour, marker in (
        (precision, "precision: of those called so", BLUE, "o"),
        (recall, "recall: of those that are so", ORANGE, "s"),
    ):
        axes.plot(100 * values[order], rows, marker, color=colour, ms=8, label=name)
    low, high = (100 * choose(precision, recall)[order] for choose in (np.fmin, np.fmax))
    axes.hlines(rows, low, high, color=GREY, zorder=0)
    axes.set_yticks(rows, [short(names[i], 24) for i in order])
    figure.legend(loc="outside lower center", ncols=2, fontsize=12, frameon=False)
    return figure


def plot_calibration(found: Calibration, split: str) -> Figure:
    """The reliability diagram: the accuracy at each confidence, and how many images have it."""
    figure = ShowableFigure(figsize=(7, 7), dpi=150, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    middles, width = (found.edges[:-1] + found.edges[1:]) / 2, np.diff(found.edges) * 92
    accuracy, confidence = 100 * found.accuracy, 100 * found.confidence
    upper.plot([0, 100], [0, 100], color=GREY, lw=2, ls="--", label="as sure as right")
    upper.bar(100 * middles, np.nan_to_num(accuracy), width, color=BLUE, label="accuracy")
    upper.plot(confidence, accuracy, "o", color=ORANGE, ms=6, label="mean confidence of the bin")
    error = f"expected error {100 * found.error:.1f} points"
    upper.set_title(f"Calibration on the {split} images, {error}", fontsize=15)
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


def _matrix(axes: Axes, values: np.ndarray, names: Sequence[str], form: str) -> None:
    """Values, (C, C), as shades of blue, and as numbers where there is room for them."""
    n = len(names)
    # Mistakes are few: their shades end where the most frequent one lies.
    limit = max(values[~np.eye(n, dtype=bool)].max(initial=0), 1e-9)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=limit * 1.6)
    axes.set_xlabel("predicted", fontsize=13)
    axes.set_ylabel("actual", fontsize=13)
    if n <= _MOST_NAMES:
        shown = [short(name) for name in names]
        axes.set_xticks(range(n), shown, rotation=90, fontsize=11)
        axes.set_yticks(range(n), shown, fontsize=11)
    if n <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            if value:
                colour = "white" if value > limit else "black"
                text = form.format(value)
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
