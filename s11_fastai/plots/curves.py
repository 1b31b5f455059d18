"""Curves: numbers in, matplotlib Figures out.

The names of each picture's axes and the losses that it shows stand here for the page of a run, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from s11_fastai.plots.letters import fitted
from s11_fastai.plots.style import (
    BLUE,
    COLOURS,
    GREEN,
    ORANGE,
    TITLE,
    ShowableFigure,
    figure_with_axes,
    style_axes,
)
from s11_fastai.schedule import triangular

_DASHES = ("-", "--", ":", "-.")
_LEGEND_LINE, _LEGEND_SAMPLE = 0.27, 0.8  # inches: a line of it, and what stands beside a name


class Names(NamedTuple):
    """The title of a picture and the names of its axes."""

    title: str
    x: str
    y: str


RANGE_TEST = Names("Learning-rate range test", "learning rate", "training loss, smoothed")
SCHEDULE = Names("Learning rate of each step", "epoch", "learning rate")
LOSS = Names("Loss of each epoch", "epoch", "loss, nats")
ACCURACY = Names("Accuracy of each epoch", "epoch", "accuracy, %")


class Line(NamedTuple):
    """One line of a picture: its name, and its points in the units of the axes.

    A mean has in `runs` the values of y of each run in it. `label` is what a legend adds to the
    name.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    runs: Sequence[Sequence[float]] = ()


class ComparedRuns(NamedTuple):
    """Runs that share one line: its name, and of the evaluated images the accuracies, in percent,
    and the losses, in nats, both of shape (runs, epochs)."""

    name: str
    accuracies: np.ndarray
    losses: np.ndarray


def range_test_limits(losses: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest loss that a picture of the range test shows.

    The end of the test is a wall; what matters is the valley before it.
    """
    lowest = int(np.argmin(losses))
    fall = max(losses[: lowest + 1]) - losses[lowest]
    return losses[lowest] - 0.1 * fall, losses[lowest] + 1.4 * fall


def highest_shown_loss(train: Sequence[float], valid: Sequence[float]) -> float:
    """The highest loss that a picture of the losses shows.

    Early in a cycle a single epoch can lie far above all others. It may leave the picture, so that
    the other epochs can be told apart.
    """
    return max(*train, min(max(valid), 1.5 * max(train)))


def plot_clr(lr_min: float, lr_max: float, step_size: int, cycles: int) -> Figure:
    """The cyclical learning rate: `cycles` triangles between a line for each bound."""
    iterations = np.arange(0, 2 * step_size * cycles + 1)
    figure, axes = figure_with_axes(
        "Cyclical learning rate", "iteration", "learning rate", size=(9, 4.5)
    )
    axes.plot(iterations, triangular(iterations, step_size, lr_min, lr_max), color=BLUE, lw=2.5)
    for lr, name, side in ((lr_max, "max lr", "bottom"), (lr_min, "min lr", "top")):
        axes.axhline(lr, color=ORANGE, lw=2)
        offset = 4 if side == "bottom" else -4
        _label(axes, f"{name} = {lr:g}", (0, lr), (0, offset), va=side, fontsize=13)
    axes.margins(x=0.02, y=0.15)
    return figure


def range_test_end(lrs: Sequence[float], losses: Sequence[float], lr_max: float) -> float:
    """The right end of a picture of the range test, a learning rate.

    It lies a little beyond LRMAX and beyond the step at which the loss leaves the picture, after
    which it may come back by chance.
    """
    lowest = int(np.argmin(losses))
    above = np.flatnonzero(np.asarray(losses[lowest:]) > range_test_limits(losses)[1])
    return 1.2 * max(lr_max, lrs[lowest + above[0]] if len(above) else lrs[-1])


def plot_lr_find(
    lrs: Sequence[float],
    losses: Sequence[float],
    lr_min: float,
    lr_max: float,
    half: tuple[float, float],
) -> Figure:
    """The range test: the smoothed loss at each learning rate, with both bounds marked.

    `half` is the point of the curve, lr and loss, where the loss has made half of its fall, from
    which the rule finds the bounds.
    """
    figure, axes = figure_with_axes(*RANGE_TEST)
    axes.set_title(RANGE_TEST.title, fontsize=TITLE, pad=24)  # above the names of the bounds
    axes.plot(lrs, losses, color=BLUE, lw=2.5)
    axes.set_xscale("log")
    axes.set_ylim(*range_test_limits(losses))
    axes.set_xlim(min(lrs[0], lr_min / 1.2), range_test_end(lrs, losses, lr_max))
    # Above the picture each name ends at its line; where they would meet, the second begins there.
    start, end = np.log(axes.get_xlim())
    far_apart = np.log(lr_max / lr_min) > 0.25 * (end - start)
    second = "right" if far_apart else "left"
    for lr, name, style, side in (
        (lr_min, "LRMIN", "--", "right"),
        (lr_max, "LRMAX", "-", second),
    ):
        axes.axvline(lr, color=ORANGE, ls=style, lw=2)
        above, offset = axes.get_xaxis_transform(), (-2 if side == "right" else 2, 4)
        words = f"{name} {lr:.3g}"
        _label(axes, words, (lr, 1), offset, xycoords=above, ha=side, color=ORANGE)
    lr, loss = half
    axes.axhline(loss, color=GREEN, lw=2, ls=":")
    name = f"half of the fall, at lr {lr:.3g}"
    axes.plot(lr, loss, "o", color=GREEN, ms=9, label=name, zorder=3)
    axes.legend(fontsize=12, loc="lower left")
    return figure


def plot_schedule(epochs: Sequence[float], lrs: Sequence[float]) -> Figure:
    """The learning rate of every step; `epochs` says where in the training each step begins."""
    figure, axes = figure_with_axes(*SCHEDULE)
    axes.plot(epochs, lrs, color=BLUE, lw=2.5)
    peak = int(np.argmax(lrs))
    name = "LRMAX " if peak < len(lrs) - 1 else ""  # else it still rises
    words = f"{name}{lrs[peak]:.3g} at epoch {epochs[peak]:.3g}"
    offset, side = (10, "left") if peak < len(lrs) / 2 else (-10, "right")
    _label(axes, words, (epochs[peak], lrs[peak]), (offset, 0), ha=side, va="center")
    # Both ends lie on this line; its name stands below the hill, where nothing else is.
    axes.axhline(lrs[0], color=ORANGE, lw=1.5, ls="--", zorder=0)
    middle = (epochs[0] + epochs[-1]) / 2
    _label(axes, f"LRMIN {lrs[0]:.3g}", (middle, lrs[0]), (0, 3), ha="center", color=ORANGE)
    axes.set_ylim(bottom=0)
    return figure


def plot_accuracy(train: Line, valid: Line, target: float | None = None) -> Figure:
    """The accuracy, in percent, of the training and of the evaluated images after each epoch.

    The best epoch is marked and, where there is one, the accuracy that is the target.
    """
    best = int(np.argmax(valid.y))
    figure, axes = _plot_epochs(
        ACCURACY,
        train,
        valid,
        "{:.2f}%",
        best=f", best {valid.y[best]:.2f}% at epoch {valid.x[best]:g}",
    )
    axes.plot(valid.x[best], valid.y[best], "*", color=ORANGE, mec="black", ms=15, zorder=3)
    if target is not None:
        axes.axhline(target, color=GREEN, lw=2, ls=":", label=f"target {target:g}%")
    axes.legend(fontsize=12)
    return figure


def plot_loss(train: Line, valid: Line) -> Figure:
    """The loss, in nats, of the training and of the evaluated images in each epoch.

    Values of epochs that lie above the picture stand at its upper edge.
    """
    figure, axes = _plot_epochs(LOSS, train, valid, "{:.3f}")
    top = highest_shown_loss(train.y, valid.y)
    if max(valid.y) > top:
        axes.set_ylim(top=top)
    for x, y in zip(valid.x, valid.y, strict=True):
        if y > top:
            axes.plot(x, top, "^", color=ORANGE, ms=9, clip_on=False, zorder=3)
            box = {"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 0.5}
            look: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "top", "bbox": box}
            _label(axes, f"{y:.3g}", (x, top), (0, -8), fontsize=11, color=ORANGE, **look)
    return figure


def plot_comparison(runs: Sequence[ComparedRuns], note: str = "") -> Figure:
    """Accuracy and loss of the evaluated images after each epoch, a line for each name.

    Several runs under one name are drawn as their mean, with a band from the lowest to the highest.
    After seven names the colours come again, with other dashes. `note` is said of the losses.
    """
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    size = (14, 5.4 + _LEGEND_LINE * rows)
    figure = ShowableFigure(figsize=size, dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    style_axes(left, *ACCURACY)
    style_axes(right, *LOSS)
    if note:
        right.set_xlabel(f"{LOSS.x}\n{note}", fontsize=12)
    for i, (name, accuracies, losses) in enumerate(runs):
        look = {"color": COLOURS[i % len(COLOURS)], "ls": _DASHES[i // len(COLOURS) % len(_DASHES)]}
        label = fitted(name, size[0] / columns - _LEGEND_SAMPLE, 12)
        _mean_and_band(left, accuracies, label, **look)
        _mean_and_band(right, losses, label, **look)
    for axes in (left, right):
        _whole_numbers(axes)
    # Losses of single epochs can lie far above all others.
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_locator(NullLocator())
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        fontsize=12,
        frameon=False,
    )
    return figure


def plot_peaks(
    accuracies: Mapping[float, Sequence[float]], found: Sequence[tuple[float, float]], split: str
) -> Figure:
    """Accuracies in percent of runs with each peak lr, a point a seed, side by side, and of those
    that have `found` their own: peak and accuracy.

    The line goes through the means, each over as many seeds as stand below its peak. `split` names
    the images of which they are.
    """
    figure, axes = figure_with_axes(
        "What a peak is worth", "learning rate at the peak", f"accuracy of {split} images, %"
    )
    peaks = sorted(accuracies)
    for peak in peaks:
        own = sorted(accuracies[peak])
        places = peak * 1.06 ** (np.arange(len(own)) - (len(own) - 1) / 2)
        axes.plot(places, own, "o", color=BLUE, alpha=0.4, ms=6, clip_on=False)
    axes.plot(peaks, [np.mean(accuracies[peak]) for peak in peaks], color=BLUE, lw=2.5)
    for peak, _ in found:
        axes.axvline(peak, color=ORANGE, lw=2, alpha=0.4)
    if found:
        label = "found by the range test"
        axes.plot(*zip(*found, strict=True), "D", color=ORANGE, mec="black", ms=8, label=label)
        figure.legend(loc="outside lower center", fontsize=12, frameon=False)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    numbers = {peak: len(own) for peak, own in accuracies.items()}
    seeds = {peak: f"\n{n} seed{'s' * (n > 1)}" for peak, n in numbers.items()}
    axes.set_xticks(peaks, [f"{peak:g}{seeds[peak]}" for peak in peaks])
    return figure


def _label(
    axes: Axes,
    words: str,
    place: tuple[float, float],
    offset: tuple[float, float],
    fontsize: int = 12,
    **look: Any,
) -> None:
    """Words at a place, moved by an offset in points."""
    axes.annotate(
        words, place, xytext=offset, textcoords="offset points", fontsize=fontsize, **look
    )


def _plot_epochs(
    names: Names, train: Line, valid: Line, form: str, best: str = ""
) -> tuple[Figure, Axes]:
    """Both lines with a mark at each epoch; the legend gives the last value in the given form."""
    figure, axes = figure_with_axes(*names)
    for line, colour, marker, more in ((train, BLUE, "o", ""), (valid, ORANGE, "s", best)):
        label = f"{line.name}, last {form.format(line.y[-1])}{more}"
        axes.plot(line.x, line.y, color=colour, marker=marker, ms=5, lw=2.5, label=label)
    _whole_numbers(axes)
    axes.legend(fontsize=12)
    return figure, axes


def _mean_and_band(axes: Axes, values: np.ndarray, label: str, color: str, ls: str) -> None:
    epochs = np.arange(1, values.shape[1] + 1)
    mean = values.mean(axis=0)
    axes.plot(epochs, mean, color=color, ls=ls, marker="o", ms=4, lw=2.5, label=label)
    if len(values) > 1:
        lowest, highest = values.min(axis=0), values.max(axis=0)
        axes.fill_between(epochs, lowest, highest, color=color, alpha=0.2)


def _whole_numbers(axes: Axes) -> None:
    """Epochs are counted: no tick lies between two of them."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
