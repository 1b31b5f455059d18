"""Curves: numbers in, matplotlib Figures out."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from s11_fastai.plots.style import (
    BLUE,
    COLOURS,
    ORANGE,
    figure_with_axes,
    highest_loss,
    plain,
    style_axes,
)
from s11_fastai.runs.records import EpochRow
from s11_fastai.schedule import triangular


def plot_clr(lr_min: float, lr_max: float, step_size: int, cycles: int) -> Figure:
    """The cyclical learning rate: `cycles` triangles between a line for each bound."""
    iterations = np.arange(0, 2 * step_size * cycles + 1)
    figure, axes = figure_with_axes(
        "Cyclical learning rate", "iteration", "learning rate", size=(9, 4.5)
    )
    axes.plot(iterations, triangular(iterations, step_size, lr_min, lr_max), color=BLUE, lw=2.5)
    for lr, name, side in ((lr_max, "max lr", "bottom"), (lr_min, "min lr", "top")):
        axes.axhline(lr, color=ORANGE, lw=2)
        axes.annotate(
            f"{name} = {lr:g}",
            (0, lr),
            xytext=(0, 4 if side == "bottom" else -4),
            textcoords="offset points",
            va=side,
            fontsize=13,
        )
    axes.margins(x=0.02, y=0.15)
    return figure


def plot_lr_find(
    lrs: Sequence[float], losses: Sequence[float], lr_min: float, lr_max: float
) -> Figure:
    """The range test: smoothed loss over the learning rate, with both bounds marked."""
    figure, axes = figure_with_axes(
        "Learning-rate range test", "learning rate", "training loss, smoothed"
    )
    axes.plot(lrs, losses, color=BLUE, lw=2.5)
    axes.set_xscale("log")
    for lr, name, style in ((lr_min, "LRMIN", "--"), (lr_max, "LRMAX", "-")):
        axes.axvline(lr, color=ORANGE, ls=style, lw=2, label=f"{name} = {lr:.3g}")
    # The end of the test is a wall; what matters is the valley before it.
    low = int(np.argmin(losses))
    height = max(losses[: low + 1]) - losses[low]
    axes.set_ylim(losses[low] - 0.1 * height, losses[low] + 1.4 * height)
    axes.legend(fontsize=12)
    return figure


def plot_schedule(lrs: Sequence[float], steps_per_epoch: int) -> Figure:
    """The learning rate of every step, over epochs."""
    figure, axes = figure_with_axes("Learning rate of each step", "epoch", "learning rate")
    axes.plot(np.arange(len(lrs)) / steps_per_epoch, lrs, color=BLUE, lw=2.5)
    peak = int(np.argmax(lrs))
    on_the_right = peak < len(lrs) / 2
    axes.annotate(
        f"{lrs[peak]:.3g} at epoch {peak / steps_per_epoch:g}",
        (peak / steps_per_epoch, lrs[peak]),
        xytext=(10 if on_the_right else -10, 0),
        textcoords="offset points",
        ha="left" if on_the_right else "right",
        va="center",
        fontsize=12,
    )
    axes.set_ylim(bottom=0)
    return figure


def plot_history(
    train: Sequence[float], valid: Sequence[float], evaluated_on: str, quantity: str
) -> Figure:
    """Loss ("loss") or accuracy ("accuracy", fractions drawn as percent) of both parts by epoch."""
    percent = quantity == "accuracy"
    unit = "accuracy, %" if percent else "loss, nats"
    figure, axes = figure_with_axes(f"{quantity.capitalize()} of each epoch", "epoch", unit)
    epochs = np.arange(1, len(train) + 1)
    scale = 100 if percent else 1
    for values, name, colour, marker in (
        (train, "train", BLUE, "o"),
        (valid, evaluated_on, ORANGE, "s"),
    ):
        drawn = scale * np.asarray(values, dtype=float)
        label = f"{name}, last {drawn[-1]:.2f}%" if percent else f"{name}, last {drawn[-1]:.3f}"
        axes.plot(epochs, drawn, color=colour, marker=marker, ms=5, lw=2.5, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if not percent and max(valid) > (top := highest_loss(train, valid)):
        axes.set_ylim(top=top)
    axes.legend(fontsize=12)
    return figure


def plot_comparison(runs: Sequence[tuple[str, Sequence[Sequence[EpochRow]]]]) -> Figure:
    """Accuracy and loss of the evaluated images by epoch, a line for each name.

    Several histories under one name are drawn as their mean, with a band from the lowest to the
    highest.
    """
    figure = Figure(figsize=(14, 5.6), dpi=150, layout="constrained")
    panels = zip(
        figure.subplots(1, 2),
        (("accuracy, %", "valid_accuracy", 100), ("loss, nats", "valid_loss", 1)),
        strict=True,
    )
    for axes, (unit, column, scale) in panels:
        style_axes(axes, f"{unit.split(',')[0].capitalize()} of each epoch", "epoch", unit)
        for (name, histories), colour in zip(runs, cycle(COLOURS), strict=False):
            length = min(map(len, histories))
            values = scale * np.asarray(
                [[getattr(row, column) for row in rows[:length]] for rows in histories]
            )
            epochs = np.arange(1, length + 1)
            mean = values.mean(axis=0)
            axes.plot(epochs, mean, color=colour, marker="o", ms=4, lw=2.5, label=plain(name))
            if len(values) > 1:
                axes.fill_between(
                    epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2
                )
        axes.xaxis.get_major_locator().set_params(integer=True)
    # Losses of single epochs can lie far above all others.
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=min(len(runs), 3),
        fontsize=12,
        frameon=False,
    )
    return figure
