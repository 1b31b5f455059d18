"""Weights that explain themselves: from one file, any picture can be named without its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s11_fastai.data.transforms import NormalizeBytes, to_batch
from s11_fastai.errors import S11Error
from s11_fastai.interpret import Predictions, finite, predict
from s11_fastai.learner import S11Learner
from s11_fastai.model import S11ResNet
from s11_fastai.runs.schema import CLAIM, WEIGHTS, check_fields
from s11_fastai.sources import Split
from s11_fastai.storage import Damaged, read_tensors, write_tensors

_PIXELS = 512 * 32 * 32  # of a batch, so that large images take no more memory than small ones
_COUNT = "num_batches_tracked"  # the one of BatchNorm's buffers that counts


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained S11ResNet with all that it takes to name a picture by it.

    `classes` are the names of its outputs. Its images have `side` pixels a side and are normalised
    with `mean` and `std`, a value for each channel on the scale of [0, 1]. `claim` is what its
    file says that it reaches, such as an accuracy and on which images.
    """

    model: S11ResNet
    classes: tuple[str, ...]
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    claim: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, learn: S11Learner) -> Classifier:
        """The network of a Learner whose DataLoaders `get_dls` made."""
        (normalize,) = (f for f in learn.dls.after_batch.fs if isinstance(f, NormalizeBytes))
        side = learn.dls.valid.images.shape[0]
        mean, std = normalize.statistics
        return cls(learn.model, tuple(learn.dls.vocab), side, mean, std)

    def log_probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Of images, uint8 (N, side, side, 3): float32 (N, C), for each class."""
        return self.evaluate(Split(pixels, np.zeros(len(pixels), np.int64))).log_probabilities

    def evaluate(self, split: Split) -> Predictions:
        """What it says of images and labels, in float32.

        Raises S11Error for images of another shape than its own, for none, and where it gives NaN
        for one.
        """
        n, *shape = split.images.shape
        if shape != [self.side, self.side, 3]:
            size = "x".join(map(str, shape[:2]))
            raise S11Error(f"the network takes images of {self.side}x{self.side}, not {size}")
        if not n:
            raise S11Error("there is no image to look at: give some")
        return finite(predict(self.model, self._batches(split)))

    def _batches(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        normalize = NormalizeBytes(self.mean, self.std)
        device = next(self.model.parameters()).device
        n = max(_PIXELS // self.side**2, 1)
        for start in range(0, len(split.labels), n):
            part = slice(start, start + n)
            images = normalize(to_batch(split.images[part].copy()))
            yield images.to(device), torch.from_numpy(split.labels[part])

    def about(self) -> dict[str, Any]:
        """What a file of its weights says beside them."""
        return {
            "network": type(self.model).__name__,
            "width": self.model.width,
            "logit_scale": self.model.logit_scale,
            "classes": list(self.classes),
            "side": self.side,
            "mean": list(self.mean),
            "std": list(self.std),
        }


def round_to_float16(classifier: Classifier) -> None:
    """Make its weights what float16 can hold, which is half the size of a file."""
    classifier.model.load_state_dict(_as_float16(classifier))


def write_weights(path: Path, classifier: Classifier, claim: Mapping[str, Any]) -> None:
    """Write a network as float16, with what it reaches so. Raises OSError."""
    write_tensors(path, _as_float16(classifier), classifier.about() | {"claim": dict(claim)})


def _as_float16(classifier: Classifier) -> dict[str, Tensor]:
    """Its weights, what counts left as it is."""
    weights = classifier.model.state_dict()
    return {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}


def read_weights(path: Path, device: torch.device) -> Classifier:
    """The network in a file that a run or `write_weights` left; raises S11Error for another.

    Its weights are float32, whatever the file holds.
    """
    if not path.is_file():
        raise S11Error(
            f"{path} is no file: give `weights`, a model.safetensors that a run has left"
        )
    try:
        tensors, about = read_tensors(path)
    except Damaged as error:
        raise S11Error(
            f"{error}: give `weights`, a model.safetensors that a run has left"
        ) from error
    try:
        return _classifier(tensors, about, device)
    except ValueError as error:
        raise S11Error(
            f"{path} does not say which network its weights are of ({error}): give `weights`, a "
            "model.safetensors of this version"
        ) from error


def _classifier(tensors: Mapping[str, Tensor], about: Any, device: torch.device) -> Classifier:
    """The network that a file describes; raises ValueError where it describes none."""
    check_fields(about, WEIGHTS)
    if (claim := about.get("claim")) is not None:
        check_fields(claim, CLAIM, required=False)
    model = network_without_room(len(about["classes"]), about["width"], about["logit_scale"])
    if {k: v.shape for k, v in tensors.items()} != shapes_of(model):
        raise ValueError("its weights have other shapes")
    check_numbers(tensors)
    weights = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    model.load_state_dict(weights, assign=True)
    model = model.eval().to(device).to(memory_format=torch.channels_last)
    mean, std = (tuple(map(float, about[name])) for name in ("mean", "std"))
    return Classifier(model, tuple(about["classes"]), about["side"], mean, std, claim)


def network_without_room(n_classes: int, width: int, logit_scale: float = 1.0) -> S11ResNet:
    """An S11ResNet on torch's meta device: shapes without memory, so that a stranger's width costs
    nothing."""
    with torch.device("meta"):
        return S11ResNet(n_classes, width, logit_scale)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def check_numbers(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError where weights are infinite or NaN, or of another kind than ours are."""
    for name, value in weights.items():
        kinds = (torch.int64,) if name.endswith(_COUNT) else (torch.float32, torch.float16)
        if value.dtype not in kinds or not value.isfinite().all():
            raise ValueError(f"{name} is not of finite numbers")
