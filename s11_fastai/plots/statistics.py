"""Figures over all predictions: arrays in, matplotlib Figures out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s11_fastai.plots.style import BLUE, GREY, ORANGE, figure_with_axes, short

if TYPE_CHECKING:  # it imports torch, which drawing a curve does without
    from s11_fastai.interpret import Calibration

_MOST_NAMES = 40  # classes that still have room for their names


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
    axes.set_yticks(rows, [short(names[i], 24) for i in order])
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


def _name_ticks(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > _MOST_NAMES:
        return
    shown = [short(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=90, fontsize=11)
    axes.set_yticks(range(len(names)), shown, fontsize=11)
