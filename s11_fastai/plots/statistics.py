"""Figures over all predictions: arrays in, matplotlib Figures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from s11_fastai.plots.letters import fitted, inches
from s11_fastai.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    TITLE,
    ShowableFigure,
    figure_with_axes,
    title_width,
)

if TYPE_CHECKING:  # it imports torch, which a picture of a curve does without
    from s11_fastai.interpret import Calibration

# With how many classes there is still room for their names, and for a number in each cell; and how
# many rows a person reads.
_MOST_NAMES, _MOST_NUMBERS, _MOST_ROWS = 100, 20, 25
_LONGEST_NAME = 2.2  # inches


def plot_confusion(counts: np.ndarray, names: Sequence[str], split: str) -> Figure:
    """The confusion matrix, counts int (C, C): a row an actual class, a column a predicted one.

    The shade of a cell is its share of the actual class: blue for what is right, orange for
    mistakes, on a scale of their own. `split` says which images were counted: "test" or "held-out".
    """
    n = len(names)
    # Inches; of more classes than have names, the picture grows no more.
    cell = float(np.clip(9.5 / n, min(0.115, 0.115 * _MOST_NAMES / n), 1.0))
    title = f"Confusion matrix of the {split} images\nshade: share of the actual class"
    figure = ShowableFigure(dpi=150, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.subplots()
    figure.suptitle(title, fontsize=TITLE)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(n, dtype=bool)
    worst = max(float(shares[~diagonal].max(initial=0)), 1e-9)
    for shown, colours, top in ((~diagonal, "Oranges", worst), (diagonal, "Blues", 1)):
        values = np.where(shown & (counts > 0), shares, np.nan)
        axes.imshow(values, cmap=colours, vmin=0, vmax=1.5 * top)
    _number_cells(axes, counts, white=shares > np.where(diagonal, 0.75, 0.75 * worst))
    axes.set_xlabel("predicted", fontsize=13)
    axes.set_ylabel("actual", fontsize=13)
    beside, below = _name_cells(axes, names, cell)
    side = n * cell
    figure.set_size_inches(max(side + beside + 0.7, title_width(title)), side + below + 1.3)
    return figure


def plot_per_class(
    precision: np.ndarray, recall: np.ndarray, names: Sequence[str], split: str
) -> Figure:
    """Precision and recall, fractions (C,), of each class in percent, the lowest recall on top.

    Of many classes, those with the lowest recall. NaN, of a class that nothing is or was called,
    is left out.
    """
    n = len(names)
    order = np.argsort(np.nan_to_num(recall, nan=2), kind="stable")[:_MOST_ROWS]
    title = f"Precision and recall on the {split} images"
    if n > len(order):
        title += f"\nthe {len(order)} of {n} classes with the lowest recall"
    figure, axes = figure_with_axes(title, "%", "", size=(8, 0.42 * len(order) + 2.1))
    rows = np.arange(len(order))
    # One above the other, so that none hides the other where they are equal.
    for values, name, colour, marker, shift in (
        (recall, "recall: how many of the class are predicted as it", ORANGE, "s", -0.16),
        (precision, "precision: how many predicted as the class are of it", BLUE, "o", 0.16),
    ):
        axes.plot(
            100 * values[order], rows + shift, marker, color=colour, ms=7, label=name, clip_on=False
        )
    axes.hlines(
        rows[:-1] + 0.5, 0, 1, color=GREY, lw=0.5, alpha=0.5, transform=axes.get_yaxis_transform()
    )
    axes.grid(visible=False, axis="y")
    axes.set_yticks(rows, [fitted(names[i], _LONGEST_NAME, 12) for i in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, 0), min(max(right, 1), 100))
    figure.legend(loc="outside lower center", ncols=1, fontsize=12, frameon=False)
    return figure


def plot_calibration(found: Calibration, split: str) -> Figure:
    """The reliability diagram: the accuracy at each confidence, and how many images have it.

    The fewer images a bin has, the paler it is.
    """
    title = f"Calibration on the {split} images\nexpected calibration error (ECE)"
    title += f" {100 * found.error:.1f} points"
    figure = ShowableFigure(figsize=(7.5, 7.5), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=TITLE)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _draw_accuracy_of_bins(upper, found)
    _draw_counts_of_bins(lower, found)
    lower.set_xlim(0, 100)
    lower.set_xlabel("confidence, %", fontsize=13)
    for axes, name in ((upper, "accuracy, %"), (lower, "images")):
        axes.set_ylabel(name, fontsize=13)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11)
    figure.legend(loc="outside lower center", ncols=2, fontsize=11, frameon=False)
    return figure


def _draw_accuracy_of_bins(axes: Axes, found: Calibration) -> None:
    middles, widths = _bars(found)
    accuracy, confidence = 100 * found.accuracy, 100 * found.confidence
    # From nearly nothing for one image to full for the bin with the most, by magnitude.
    weight = np.log1p(found.count) / np.log1p(max(found.count.max(), 1))
    axes.plot([0, 100], [0, 100], color=GREY, lw=2, ls="--", label="as sure as right")
    for i in np.flatnonzero(found.count):
        axes.bar(
            middles[i],
            accuracy[i],
            widths[i],
            color=BLUE,
            edgecolor=BLUE,  # so that a bar of 0% is a line
            lw=2,
            alpha=0.1 + 0.9 * weight[i] ** 2,
            clip_on=False,
        )
    axes.bar(0, 0, color=BLUE, label="accuracy; the paler, the fewer images")
    name = "mean confidence of the bin"
    axes.plot(confidence, accuracy, "o", color=ORANGE, ms=6, clip_on=False, label=name)
    axes.set_ylim(0, 100)


def _draw_counts_of_bins(axes: Axes, found: Calibration) -> None:
    middles, widths = _bars(found)
    axes.bar(middles, found.count, widths, color=GREY)
    for i in np.flatnonzero(found.count):
        count = f"{found.count[i]:,}"
        axes.text(middles[i], found.count[i], count, ha="center", va="bottom", fontsize=8)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(0, 4 * max(found.count.max(), 10))


def _bars(found: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Where the bars of the bins stand and how wide they are, in percent."""
    return 50 * (found.edges[:-1] + found.edges[1:]), 92 * np.diff(found.edges)


def _number_cells(axes: Axes, counts: np.ndarray, white: np.ndarray) -> None:
    """The count in each cell that has one, where there is room; in white where that says so."""
    n = len(counts)
    if n > _MOST_NUMBERS:
        return
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                fontsize=12 if n <= 12 else 8,
                color="white" if white[row, column] else "black",
            )


def _name_cells(axes: Axes, names: Sequence[str], cell: float) -> tuple[float, float]:
    """Names at rows and columns, turned only where they do not fit; inches beside and below."""
    n = len(names)
    if n > _MOST_NAMES:
        return 0.4, 0.4
    size = float(np.clip(50 * cell, 5, 11))
    widest = max(inches(name, size) for name in names)
    turned = widest > 0.92 * cell
    if turned and 0.8 * widest <= 0.92 * cell:  # a little smaller, they fit
        size, widest, turned = 0.8 * size, 0.8 * widest, False
    shown = [fitted(name, _LONGEST_NAME, size) for name in names]
    axes.set_xticks(range(n), shown, rotation=90 if turned else 0, fontsize=size)
    axes.set_yticks(range(n), shown, fontsize=size)
    widest = min(widest, _LONGEST_NAME)
    return widest, widest if turned else 0.2
