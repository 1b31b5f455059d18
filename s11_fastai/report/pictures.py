"""The pictures of a run, from its records, its images and its network."""

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from s11_fastai import interpret, plots
from s11_fastai.data.transforms import (
    HOLE,
    channel_stats,
    cutout_,
    pad_crop_flip,
    sample_params,
    to_batch,
)
from s11_fastai.learner import S11Learner
from s11_fastai.runs.records import Records
from s11_fastai.sources import ImageSet
from s11_fastai.storage import write_atomically

_LAYERS = ("prep", "layer1", "layer2", "layer3")


def draw_images(run: Path, images: ImageSet, seed: int) -> None:
    """What goes in: `samples` and `augmented`."""
    train = images.train
    _write(run, "samples", plots.plot_samples(train.images, train.labels, images.classes))
    _write(run, "augmented", plots.plot_augmented(train.images[0], draws_of(images, 0, seed)))


def draw_records(records: Records) -> None:
    """How training went: `lr_find`, where the bounds were found; `schedule`, `loss`, `accuracy`."""
    run, bounds, lrs = records.path, records.bounds, [step.lr for step in records.steps]
    if bounds and bounds.lrs:
        _write(
            run,
            "lr_find",
            plots.plot_lr_find(bounds.lrs, bounds.losses, bounds.lr_min, bounds.lr_max),
        )
    if not records.history:
        return
    _write(run, "schedule", plots.plot_schedule(lrs, len(lrs) // len(records.history)))
    for quantity in ("loss", "accuracy"):
        train, valid = (
            [getattr(row, f"{part}_{quantity}") for row in records.history]
            for part in ("train", "valid")
        )
        _write(run, quantity, plots.plot_history(train, valid, records.evaluated_on, quantity))


def draw_predictions(run: Path, learn: S11Learner, seed: int) -> None:
    """What went wrong: everything that one pass over the evaluated images shows."""
    images = learn.dls.valid.images
    names, part, pixels = images.classes, images.evaluated_on, images.valid.images
    found = interpret.predict(learn.model, learn.dls.valid)

    chosen = interpret.misclassified(found, 25, seed)
    wrong, total = found.take(chosen), int((found.classes != found.labels).sum())
    _write(
        run, "misclassified", plots.plot_misclassified(pixels[chosen], wrong, names, part, total)
    )
    _draw_grad_cam(run, learn, pixels[chosen], wrong, chosen)

    highest = interpret.top_losses(found, 25)
    _write(
        run,
        "top_losses",
        plots.plot_top_losses(pixels[highest], found.take(highest), names, part),
    )
    counts = interpret.confusion(found)
    _write(run, "confusion", plots.plot_confusion(counts, names, part))
    precision, recall = interpret.precision_and_recall(counts)
    _write(run, "per_class", plots.plot_per_class(precision, recall, names, part))
    _write(run, "calibration", plots.plot_calibration(interpret.calibration(found), part))
    pairs = interpret.confused_pairs(counts, 8)
    examples = [
        pixels[np.flatnonzero((found.labels == a) & (found.classes == p))[:5]] for a, p, _ in pairs
    ]
    _write(run, "confused_pairs", plots.plot_confused_pairs(pairs, examples, names, part))


def as_the_network_sees(learn: S11Learner, chosen: np.ndarray) -> Tensor:
    """Some of the evaluated images by their indices, float32 (n, 3, 32, 32), normalised."""
    first = len(learn.dls.valid.images.train.labels)
    loader = learn.dls.test_dl([first + int(i) for i in chosen], bs=len(chosen))
    return loader.one_batch()[0].as_subclass(Tensor)


def draws_of(images: ImageSet, index: int, seed: int, n: int = 16) -> np.ndarray:
    """What the first `n` epochs show of one training image, uint8 (n, 32, 32, 3)."""
    image = images.train.images[[index]]
    mean = torch.tensor(channel_stats(images.train.images)[0])[:, None, None] * 255
    shown = []
    for epoch in range(n):
        params = sample_params(len(images.train.labels), seed, epoch).take(np.asarray([index]))
        crop = to_batch(pad_crop_flip(image, params)).float().as_subclass(Tensor)
        shown.append(cutout_(crop, params.holes, HOLE, mean).byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(shown)


def _draw_grad_cam(
    run: Path,
    learn: S11Learner,
    pixels: np.ndarray,
    wrong: interpret.Predictions,
    chosen: np.ndarray,
) -> None:
    names, none = learn.dls.valid.images.classes, np.empty((0, 1, 1))
    x = as_the_network_sees(learn, chosen) if len(chosen) else None

    def cam(layer: str, classes: np.ndarray, n: int = 25) -> np.ndarray:
        return none if x is None else interpret.grad_cam(learn.model, layer, x[:n], classes[:n])

    last = _LAYERS[-1]
    figure = plots.plot_grad_cam(
        pixels, cam(last, wrong.classes), cam(last, wrong.labels), wrong, names, last
    )
    _write(run, "gradcam", figure)
    maps = {layer: cam(layer, wrong.classes, 5) for layer in _LAYERS}
    few = wrong.take(np.arange(len(chosen))[:5])
    _write(run, "gradcam_layers", plots.plot_grad_cam_layers(pixels[:5], maps, few, names))


def write_figure(path: Path, figure: Figure) -> None:
    """Write the picture whole, in the format that its name ends with."""
    image = io.BytesIO()
    figure.savefig(image, format=path.suffix[1:].lower())
    write_atomically(path, image.getvalue())


def _write(run: Path, name: str, figure: Figure) -> None:
    write_figure(run / "figures" / f"{name}.png", figure)
