"""Albumentations pipelines, run on one image after the other with a seed for each."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import numpy as np
from fastai.vision.core import TensorImage

from s11_fastai.data.transforms import DRAW_STREAM, HOLE, PAD, to_batch
from s11_fastai.errors import S11Error
from s11_fastai.sources.imageset import SIDE

if TYPE_CHECKING:
    import albumentations as A


class PerImage:
    """An Albumentations pipeline, run on one image after the other with a seed for each."""

    def __init__(self, images: np.ndarray, seed: int, pipeline: A.Compose) -> None:
        self.images, self.seed, self.pipeline = images, seed, copy.deepcopy(pipeline)

    def prepare(self) -> None:
        """Nothing to do ahead of the first batch."""

    def __call__(self, indices: np.ndarray, epoch: int) -> TensorImage:
        images = self.images[indices]
        out = np.empty_like(images)
        for i, index in enumerate(indices.tolist()):
            seeds = np.random.SeedSequence([self.seed, epoch, DRAW_STREAM, index])
            self.pipeline.set_random_seed(int(seeds.generate_state(1)[0]))
            image = self.pipeline(image=images[i])["image"]
            if not (
                isinstance(image, np.ndarray)
                and image.dtype == np.uint8
                and image.shape == out.shape[1:]
            ):
                raise S11Error(
                    f"augment= must give uint8 images of shape {out.shape[1:]}, as it gets: leave "
                    "out Normalize and ToTensorV2, which come afterwards, and changes of size"
                )
            out[i] = image
        return to_batch(out)


def albumentations_default(fill: tuple[float, ...] = (0.0, 0.0, 0.0)) -> A.Compose:
    """An Albumentations pipeline that draws from the default's distribution.

    `fill` is Cutout's value for each channel, 0 to 255. It takes and gives uint8 (32, 32, 3).
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network
    import albumentations as A

    padded = SIDE + 2 * PAD
    return A.Compose(
        [
            A.PadIfNeeded(padded, padded, fill=0),
            A.RandomCrop(SIDE, SIDE),
            A.HorizontalFlip(p=0.5),
            A.CoarseDropout(
                num_holes_range=(1, 1),
                hole_height_range=(HOLE, HOLE),
                hole_width_range=(HOLE, HOLE),
                fill=fill,
                p=1,
            ),
        ]
    )
