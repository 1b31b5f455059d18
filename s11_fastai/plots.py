"""Pictures: arrays in, matplotlib Figures out; no backend is chosen and nothing is saved here.

Colours are Okabe and Ito's, which colour-blind people can tell apart.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s11_fastai.schedule import triangular

BLUE, ORANGE = "#0072B2", "#D55E00"


def plot_clr(lr_min: float, lr_max: float, step_size: int, cycles: int) -> Figure:
    """The cyclical learning rate: `cycles` triangles between a line for each bound."""
    iterations = np.arange(0, 2 * step_size * cycles + 1)
    figure, axes = _figure("Cyclical learning rate", "iteration", "learning rate", size=(9, 4.5))
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
    figure, axes = _figure("Learning-rate range test", "learning rate", "training loss, smoothed")
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
    figure, axes = _figure("Learning rate of each step", "epoch", "learning rate")
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
    figure, axes = _figure(f"{quantity.capitalize()} of each epoch", "epoch", unit)
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
    axes.legend(fontsize=12)
    return figure


def plot_samples(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Five images of each class, a row a class with its name; at most 20 classes.

    images: uint8 (N, 32, 32, 3), labels: (N,). The first five of each class are drawn.
    """
    rows = min(len(classes), 20)
    figure = Figure(figsize=(5.4, 0.85 * rows + 0.1), dpi=150, layout="constrained")
    for axes_row, label in zip(figure.subplots(rows, 5, squeeze=False), range(rows), strict=True):
        chosen = images[np.flatnonzero(labels == label)[:5]]
        for axes in axes_row:
            axes.axis("off")
        for axes, image in zip(axes_row, chosen, strict=False):
            axes.imshow(image)
        axes_row[0].axis("on")
        axes_row[0].tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
        axes_row[0].set_frame_on(False)
        axes_row[0].set_ylabel(
            _plain(classes[label]), rotation=0, ha="right", va="center", fontsize=13
        )
    return figure


def plot_augmented(original: np.ndarray, draws: np.ndarray) -> Figure:
    """One image and what training shows of it: uint8 (32, 32, 3) and (16, 32, 32, 3)."""
    figure = Figure(figsize=(9, 6.4), dpi=150, layout="constrained")
    figure.suptitle("One image and 16 draws of pad-crop, flip and Cutout", fontsize=16)
    grid = figure.add_gridspec(4, 6)
    panels = [grid[1:3, 0:2], *(grid[row, column] for row in range(4) for column in range(2, 6))]
    for place, image in zip(panels, [original, *draws], strict=True):
        axes = figure.add_subplot(place)
        axes.imshow(image)
        axes.axis("off")
    return figure


def _figure(title: str, x: str, y: str, size: tuple[float, float] = (8, 5)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=16)
    axes.set_xlabel(x, fontsize=14)
    axes.set_ylabel(y, fontsize=14)
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(name: str) -> str:
    """A folder's name as text, where matplotlib would read dollars as formulas."""
    return name.replace("$", r"\$")
