"""The pictures of a run, from its records and its images."""

import numpy as np
import torch

from s11_fastai.augment import HOLE, PadCropFlip, cutout
from s11_fastai.data import channel_stats
from s11_fastai.plots import (
    plot_augmented,
    plot_history,
    plot_lr_find,
    plot_samples,
    plot_schedule,
)
from s11_fastai.runs import RunFolder
from s11_fastai.sources import ImageSet


def draw_figures(run: RunFolder, images: ImageSet) -> None:
    """Draw everything in `figures/`; no range test where the bounds were given by hand."""
    train, bounds = images.train, run.bounds
    run.write_figure("samples", plot_samples(train.images, train.labels, images.classes))
    run.write_figure(
        "augmented", plot_augmented(train.images[0], draws_of(images, 0, run.config["seed"]))
    )
    if bounds.lrs:
        run.write_figure(
            "lr_find", plot_lr_find(bounds.lrs, bounds.losses, bounds.lr_min, bounds.lr_max)
        )
    lrs = [step.lr for step in run.steps]
    run.write_figure("schedule", plot_schedule(lrs, len(lrs) // len(run.history)))
    for quantity in ("loss", "accuracy"):
        train_values, valid_values = (
            [getattr(row, f"{part}_{quantity}") for row in run.history]
            for part in ("train", "valid")
        )
        run.write_figure(
            quantity, plot_history(train_values, valid_values, images.evaluated_on, quantity)
        )


def draws_of(images: ImageSet, index: int, seed: int, n: int = 16) -> np.ndarray:
    """What the first `n` epochs show of one training image, uint8 (n, 32, 32, 3)."""
    augment = PadCropFlip(len(images.train.labels), seed)
    fill = torch.tensor(channel_stats(images.train.images)[0]) * 255
    shown = []
    for epoch in range(n):
        batch = augment(images.train.images[index][None], np.asarray([index]), epoch)
        holed = cutout(batch.float(), batch.holes, HOLE, fill)
        shown.append(holed.byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(shown)
