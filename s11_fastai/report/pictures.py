"""The pictures of a run: one function for each, and one table of them all, PICTURES, at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from s11_fastai import interpret, plots
from s11_fastai.learner import S11Learner
from s11_fastai.lr_bounds import half_of_the_fall
from s11_fastai.report import curves
from s11_fastai.report.classes import MOST_CONFUSED, record_of, write_record
from s11_fastai.report.predictions import prediction_rows
from s11_fastai.runs.records import Records
from s11_fastai.sources import ImageSet
from s11_fastai.storage import Folder

_LAYERS = ("prep", "layer1", "layer2", "layer3")


def draw_images(folder: Folder, learn: S11Learner) -> None:
    """Write the pictures of the training images into the folder of a run."""
    _draw(folder, Inputs(learn))


def draw_records(folder: Folder, records: Records) -> None:
    """Write the pictures of how training went, as far as it went."""
    _draw(folder, records)


def draw_predictions(
    folder: Folder, learn: S11Learner, seed: int, weights: str = "final", epoch: int | None = None
) -> None:
    """Write the pictures of what the network says of the evaluated images, and their numbers.

    `weights` and `epoch` say which the Learner has, as `ClassRecord` does.
    """
    found = Evaluation(learn, seed)
    _draw(folder, found)
    write_record(folder, record_of(found.counts, found.names, weights, found.split, epoch))
    rows = prediction_rows(found.predictions, found.indices, found.names)
    folder.write("predictions.csv", rows)


def write_figure(folder: Folder, name: str, figure: Figure) -> None:
    """Write a picture as a whole file, in the format that its name ends with."""
    folder.write(name, plots.encoded(figure, name))


class Inputs:
    """What goes into the network: the training images of a Learner, and how they are augmented."""

    def __init__(self, learn: S11Learner) -> None:
        self.learn, self.images = learn, images_of(learn)

    def mark(self, places: np.ndarray) -> list[str]:
        """What each of some training images is called."""
        return marks_of(self.learn.dls.train.indices[places])


class Evaluation:
    """What a network says of the evaluated images, each thing computed when it is first needed.

    `seed` chooses which misclassified images are shown.
    """

    def __init__(self, learn: S11Learner, seed: int) -> None:
        images = images_of(learn)
        self.learn, self.seed = learn, seed
        self.pixels, self.names = images.valid.images, images.classes
        self.indices = learn.dls.valid.indices
        self.split = images.evaluated_on

    def mark(self, places: np.ndarray) -> list[str]:
        """What each of some evaluated images is called."""
        return marks_of(self.indices[places])

    @cached_property
    def predictions(self) -> interpret.Predictions:
        """Those of all evaluated images; raises S11Error where the network gives NaN for one."""
        return interpret.finite(interpret.predict(self.learn.model, self.learn.dls.valid))

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each class is taken for each."""
        return interpret.confusion(self.predictions)

    @cached_property
    def wrong(self) -> np.ndarray:
        """The indices of up to 25 misclassified images."""
        return interpret.misclassified(self.predictions, 25, self.seed)

    @cached_property
    def wrong_predictions(self) -> interpret.Predictions:
        """Those of the images of `wrong`."""
        return self.predictions.take(self.wrong)

    def grad_cam(self, layer: str, classes: np.ndarray) -> np.ndarray:
        """Grad-CAM at a layer of the first n images of `wrong`, for n classes, one of each."""
        return interpret.grad_cam(
            self.learn.model, layer, self._wrong_inputs[: len(classes)], classes
        )

    @cached_property
    def _wrong_inputs(self) -> Tensor:
        return as_the_network_sees(self.learn, self.wrong)


def images_of(learn: S11Learner) -> ImageSet:
    """The images that a Learner is trained and evaluated on."""
    return learn.dls.valid.images


def marks_of(indices: np.ndarray) -> list[str]:
    """What images are called in pictures: by the indices that `learn.predict` takes."""
    return [f"#{index}" for index in indices]


def as_the_network_sees(learn: S11Learner, chosen: np.ndarray) -> Tensor:
    """Some of the evaluated images by their indices: float32 (n, 3, H, W), normalised."""
    if not len(chosen):
        return torch.empty(0, 3, *images_of(learn).shape)
    loader = learn.dls.test_dl(chosen.tolist(), bs=len(chosen))
    return loader.one_batch()[0].as_subclass(Tensor)


def augmented_versions(learn: S11Learner, place: int, n: int = 16) -> np.ndarray:
    """One training image as the first `n` epochs show it, uint8 (n, H, W, 3)."""
    loader = learn.dls.train
    transforms, index = loader.after_batch, loader.indices[[place]]
    transforms.split_idx = 0  # those of training, as fastai sets it when a pass begins
    shown = []
    for epoch in range(n):
        batch = transforms(loader.augment(index, epoch).to(loader.device))
        shown.append(transforms.decode(batch))
    pixels = torch.cat(shown).as_subclass(Tensor)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def _samples(inputs: Inputs) -> Figure:
    train = inputs.images.train
    marks = inputs.mark(np.arange(len(train.labels)))
    return plots.plot_samples(train.images, train.labels, inputs.images.classes, marks)


def _augmented(inputs: Inputs) -> Figure | None:
    if (augment := inputs.learn.dls.train.augment) is None:
        return None
    original, (mark,) = inputs.images.train.images[0], inputs.mark(np.arange(1))
    versions = augmented_versions(inputs.learn, 0)
    return plots.plot_augmented(original, versions, augment.in_words, mark)


def _drawable(curve: curves.Curve | None) -> curves.Curve | None:
    """The curve, where there is one and it can be drawn; the page says why where it cannot."""
    return None if curve is None or curve.fault else curve


def _lr_find(records: Records) -> Figure | None:
    if not (curve := _drawable(curves.range_test(records))):
        return None
    line, bounds = curve.lines["train"], records.bounds
    assert bounds is not None
    half = half_of_the_fall(line.x, line.y)
    return plots.plot_lr_find(line.x, line.y, bounds.lr_min, bounds.lr_max, half)


def _schedule(records: Records) -> Figure | None:
    if not (curve := _drawable(curves.schedule(records))):
        return None
    return plots.plot_schedule(curve.lines["rate"].x, curve.lines["rate"].y)


def _loss(records: Records) -> Figure | None:
    curve = _drawable(curves.loss(records))
    return plots.plot_loss(curve.lines["train"], curve.lines["valid"]) if curve else None


def _accuracy(records: Records) -> Figure | None:
    if not (curve := _drawable(curves.accuracy(records))):
        return None
    target = next((mark.at for mark in curve.marks if mark.kind == "target"), None)
    return plots.plot_accuracy(curve.lines["train"], curve.lines["valid"], target)


def _misclassified(found: Evaluation) -> Figure:
    total = int((found.predictions.classes != found.predictions.labels).sum())
    wrong = found.wrong
    return plots.plot_misclassified(
        found.pixels[wrong],
        found.wrong_predictions,
        found.names,
        found.split,
        total,
        found.mark(wrong),
    )


def _top_losses(found: Evaluation) -> Figure:
    highest = interpret.top_losses(found.predictions, 25)
    said = found.predictions.take(highest)
    return plots.plot_top_losses(
        found.pixels[highest], said, found.names, found.split, found.mark(highest)
    )


def _gradcam(found: Evaluation) -> Figure:
    layer, said = _LAYERS[-1], found.wrong_predictions
    predicted, actual = (found.grad_cam(layer, c) for c in (said.classes, said.labels))
    pixels, marks = found.pixels[found.wrong], found.mark(found.wrong)
    return plots.plot_grad_cam(pixels, predicted, actual, said, found.names, layer, marks)


def _gradcam_layers(found: Evaluation) -> Figure:
    chosen = found.wrong[:5]
    few = found.predictions.take(chosen)
    maps = {layer: found.grad_cam(layer, few.classes) for layer in _LAYERS}
    pixels, marks = found.pixels[chosen], found.mark(chosen)
    return plots.plot_grad_cam_layers(pixels, maps, few, found.names, marks)


def _confused_pairs(found: Evaluation) -> Figure:
    pairs = interpret.confused_pairs(found.counts, MOST_CONFUSED)
    labels, guesses = found.predictions.labels, found.predictions.classes
    examples = [
        np.flatnonzero((labels == actual) & (guesses == predicted))[:5]
        for actual, predicted, _ in pairs
    ]
    pixels = [found.pixels[places] for places in examples]
    marks = [found.mark(places) for places in examples]
    return plots.plot_confused_pairs(pairs, pixels, found.names, found.split, marks)


def _confusion(found: Evaluation) -> Figure:
    return plots.plot_confusion(found.counts, found.names, found.split)


def _per_class(found: Evaluation) -> Figure:
    precision, recall = interpret.precision_and_recall(found.predictions)
    return plots.plot_per_class(precision, recall, found.names, found.split)


def _calibration(found: Evaluation) -> Figure:
    return plots.plot_calibration(interpret.calibration(found.predictions), found.split)


Source = TypeVar("Source")


@dataclass(frozen=True)
class Picture(Generic[Source]):
    """One picture: the name of its file, what it is drawn from and by which function.

    `draw` returns None where there is nothing to show. Without a caption the picture is not on the
    page, which draws the curves itself. A `wide` one takes two columns of the page. In a `diagram`
    is no photograph: in the dark the page turns its colours over.
    """

    name: str
    source: type[Source]
    draw: Callable[[Source], Figure | None]
    caption: str | None = None
    wide: bool = False
    diagram: bool = False


# In the order of the page. The caption is also what is read out in the picture's place.
PICTURES: tuple[Picture, ...] = (
    Picture("lr_find", Records, _lr_find),
    Picture("schedule", Records, _schedule),
    Picture("loss", Records, _loss),
    Picture("accuracy", Records, _accuracy),
    Picture(
        "misclassified",
        Evaluation,
        _misclassified,
        "Misclassified images, each with its predicted and its actual class",
    ),
    Picture("top_losses", Evaluation, _top_losses, "The images with the highest losses"),
    Picture(
        "gradcam",
        Evaluation,
        _gradcam,
        "Where the network looks: Grad-CAM of the misclassified images, for the predicted and for "
        "the actual class",
        wide=True,
    ),
    Picture(
        "gradcam_layers",
        Evaluation,
        _gradcam_layers,
        "Grad-CAM of five misclassified images, layer by layer",
    ),
    Picture(
        "confused_pairs", Evaluation, _confused_pairs, "The pairs of classes most often confused"
    ),
    Picture(
        "confusion",
        Evaluation,
        _confusion,
        "The confusion matrix: how often each class is taken for each other",
        diagram=True,
    ),
    Picture(
        "per_class",
        Evaluation,
        _per_class,
        "Precision and recall of each class",
        diagram=True,
    ),
    Picture(
        "calibration",
        Evaluation,
        _calibration,
        "Calibration: how often the network is right when it is this sure",
        diagram=True,
    ),
    Picture("samples", Inputs, _samples, "Five training images of each class"),
    Picture("augmented", Inputs, _augmented, "One training image as 16 epochs show it"),
)


def _draw(folder: Folder, source: Inputs | Records | Evaluation) -> None:
    for picture in PICTURES:
        if isinstance(source, picture.source):
            figure = picture.draw(source)
            if figure is not None:
                write_figure(folder.sub("figures"), f"{picture.name}.png", figure)
