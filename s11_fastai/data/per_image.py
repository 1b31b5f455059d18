"""Albumentations pipelines, run on one image after the other with a seed for each."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fastai.vision.core import TensorImage

from s11_fastai.data.transforms import AUGMENT_STREAM, HOLE, PAD, to_batch
from s11_fastai.errors import S11Error
from s11_fastai.sources.imageset import SIDE, ImageSet

if TYPE_CHECKING:
    import albumentations as A

_TRIALS = 16


class PerImage:
    """An Albumentations pipeline on images of an ImageSet, one after the other, a seed for each."""

    def __init__(self, images: ImageSet, seed: int, pipeline: A.Compose) -> None:
        self.images, self.seed, self.pipeline = images, seed, copy.deepcopy(pipeline)

    in_words = "a pipeline of Albumentations"

    def prepare(self) -> None:
        """Nothing to do ahead of the first batch."""

    def check(self) -> None:
        """Try the pipeline on the first training image. Raises S11Error where it fails.

        Several times, because it draws each time, and also with all that may happen happening:
        what fails rarely would else fail in a late epoch.
        """
        first = np.array([len(self.images.valid.labels)])
        certain = PerImage(self.images, self.seed, self.pipeline)
        for part in _parts(certain.pipeline):
            part.p = 1.0 if part.p > 0 else 0.0
        for tried in (self, certain):
            for epoch in range(_TRIALS):
                tried._try(first, epoch)

    def _try(self, indices: np.ndarray, epoch: int) -> None:
        try:
            self(indices, epoch)
        except S11Error:
            raise
        except Exception as error:
            height, width = self.images.shape
            message = " ".join(str(error).split())
            raise S11Error(
                f"augment= fails on the first training image, {height}x{width}: {message}"
            ) from error

    def __call__(self, indices: np.ndarray, epoch: int, key: tuple[int, ...] = ()) -> TensorImage:
        """The batch of these images, uint8; `key` as in `PaddedImages`."""
        places = range(len(indices)) if key else self.images.places_in_train(indices).tolist()
        return self._made(self.images.pixels_of(indices), places, epoch, key)

    def of_pixels(self, pixels: np.ndarray, epoch: int, key: tuple[int, ...]) -> TensorImage:
        """The batch of any pictures, as `PaddedImages` has it."""
        return self._made(pixels, range(len(pixels)), epoch, key)

    def without_images(self) -> None:
        """Nothing: a pipeline may hold what cannot be exported."""

    def _made(
        self, images: np.ndarray, numbers: Sequence[int], epoch: int, key: tuple[int, ...]
    ) -> TensorImage:
        out = np.empty_like(images)
        for place, number in enumerate(numbers):
            entropy = [self.seed, epoch, AUGMENT_STREAM, number]
            seed = np.random.SeedSequence(entropy, spawn_key=key).generate_state(1)[0]
            self.pipeline.set_random_seed(int(seed))
            out[place] = self._checked(self.pipeline(image=images[place])["image"], out.shape[1:])
        return to_batch(out)

    @staticmethod
    def _checked(image: object, shape: tuple[int, ...]) -> np.ndarray:
        if isinstance(image, np.ndarray) and (image.dtype, image.shape) == (np.uint8, shape):
            return image
        raise S11Error(
            f"augment= must give uint8 images of shape {shape}, as it gets: leave out Normalize "
            "and ToTensorV2, which come afterwards, and changes of size"
        )


def _parts(pipeline: A.BasicTransform | A.BaseCompose) -> Iterator[Any]:
    """The pipeline and all transforms within it."""
    yield pipeline
    for inner in getattr(pipeline, "transforms", ()):
        yield from _parts(inner)


def albumentations_default(
    fill: tuple[float, ...] = (0.0, 0.0, 0.0),
    side: int = SIDE,
    pad: int = PAD,
    hole: int = HOLE,
    flip: bool = True,
) -> A.Compose:
    """An Albumentations pipeline that samples from the default's distribution.

    It takes and gives uint8 (side, side, 3). `fill` is Cutout's value for each channel, 0 to 255;
    without `flip` nothing is mirrored.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
    import albumentations as A

    return A.Compose(
        [
            A.PadIfNeeded(side + 2 * pad, side + 2 * pad, fill=0),
            A.RandomCrop(side, side),
            *([A.HorizontalFlip(p=0.5)] if flip else []),
            A.CoarseDropout(
                num_holes_range=(1, 1),
                hole_height_range=(hole, hole),
                hole_width_range=(hole, hole),
                fill=fill,
                p=1,
            ),
        ]
    )
