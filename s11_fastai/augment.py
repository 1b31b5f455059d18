"""Pad-crop, flip and Cutout, drawn for each image; and the same as an Albumentations pipeline.

Randomness is stateless: what is drawn for an image follows from (seed, epoch, image), whatever
batch it lands in and whichever process asks.
"""

from __future__ import annotations

import copy
import os
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from fastai.vision.core import TensorImage
from fastcore.foundation import L
from fasttransform import DisplayedTransform
from numpy.lib.stride_tricks import sliding_window_view

from s11_fastai.errors import S11Error

if TYPE_CHECKING:
    import albumentations as A

PAD, HOLE, SIDE = 4, 8, 32
_ORDER_STREAM, _DRAW_STREAM = 0, 1


class Draws(NamedTuple):
    """What is drawn for n images, each of shape (n,): the crop's corner, 0 to 8; whether to flip;
    the hole's corner, 0 to 24."""

    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    hole_top: np.ndarray
    hole_left: np.ndarray

    def take(self, indices: np.ndarray) -> Draws:
        return Draws(*(column[indices] for column in self))


@lru_cache(maxsize=2)
def draw(n: int, seed: int, epoch: int) -> Draws:
    """Draw for images 0 to n-1 of one epoch; every value of a range is equally likely."""
    rng = np.random.default_rng([seed, epoch, _DRAW_STREAM])
    corner, hole = 2 * PAD + 1, SIDE - HOLE + 1
    return Draws(
        top=rng.integers(corner, size=n),
        left=rng.integers(corner, size=n),
        flip=rng.integers(2, size=n).astype(bool),
        hole_top=rng.integers(hole, size=n),
        hole_left=rng.integers(hole, size=n),
    )


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which images 0 to n-1 are shown in one epoch."""
    return np.random.default_rng([seed, epoch, _ORDER_STREAM]).permutation(n)


def pad_crop_flip(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Pad with 4 zeros a side, crop back to 32x32 at the drawn corner, mirror where drawn.

    uint8 (n, 32, 32, 3) in, a new array of the same kind out. Source: He et al.,
    arXiv:1512.03385, section 4.2.
    """
    n, height, width, channels = images.shape
    padded = np.zeros((n, height + 2 * PAD, width + 2 * PAD, channels), images.dtype)
    padded[:, PAD:-PAD, PAD:-PAD] = images
    # Rows of pixels as runs of bytes, so that each row of a crop is one contiguous copy.
    rows = padded.reshape(n, height + 2 * PAD, -1)
    windows = sliding_window_view(rows, (height, width * channels), axis=(1, 2))[:, :, ::channels]
    crops = windows[np.arange(n), draws.top, draws.left].reshape(images.shape)
    crops[draws.flip] = crops[draws.flip, :, ::-1]
    return crops


def cutout(
    images: torch.Tensor, holes: torch.Tensor, size: int, fill: torch.Tensor
) -> torch.Tensor:
    """Fill a square of `size` pixels in each image; the images themselves stay as they are.

    images: (n, C, H, W); holes: the squares' top-left corners, integers (n, 2); fill: a value for
    each channel, (C,). Source: DeVries and Taylor, arXiv:1708.04552, with the square kept wholly
    inside the picture.
    """
    rows, columns = (torch.arange(s, device=images.device) for s in images.shape[-2:])
    top, left = holes.to(images.device, non_blocking=True)[:, :, None].unbind(1)
    in_rows, in_columns = ((s >= a) & (s < a + size) for s, a in ((rows, top), (columns, left)))
    inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return torch.where(inside, fill[None, :, None, None], images)


class Cutout(DisplayedTransform):
    """fastai's batch transform of `cutout`, on the device of the batch, for training batches only.

    It fills the squares at `holes`, which batches of `get_dls` carry. `fill` is a value for each
    channel on the scale of the images at that point: [0, 1], before they are normalised.
    """

    order, split_idx, parameters = 20, 0, L("fill")

    def __init__(self, size: int = HOLE, fill: tuple[float, ...] = (0.0, 0.0, 0.0)) -> None:
        self.size, self.fill = size, torch.tensor(fill)

    def encodes(self, x: TensorImage) -> TensorImage:
        return cutout(x, x.holes, self.size, self.fill)


class PadCropFlip:
    """The default augmentation while batches are sliced; it also draws where Cutout will cut."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed

    def __call__(self, images: np.ndarray, indices: np.ndarray, epoch: int) -> TensorImage:
        draws = draw(self.n, self.seed, epoch).take(indices)
        batch = to_batch(pad_crop_flip(images, draws))
        batch.holes = torch.from_numpy(np.stack([draws.hole_top, draws.hole_left], axis=1))
        return batch


class PerImage:
    """An Albumentations pipeline, run on one image after the other with a seed for each."""

    def __init__(self, pipeline: A.Compose, seed: int) -> None:
        self.pipeline, self.seed = copy.deepcopy(pipeline), seed

    def __call__(self, images: np.ndarray, indices: np.ndarray, epoch: int) -> TensorImage:
        out = np.empty_like(images)
        for i, index in enumerate(indices.tolist()):
            seeds = np.random.SeedSequence([self.seed, epoch, _DRAW_STREAM, index])
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


def to_batch(images: np.ndarray) -> TensorImage:
    """uint8 (n, H, W, C) to (n, C, H, W) in channels-last memory, without a copy."""
    return TensorImage(torch.from_numpy(images).permute(0, 3, 1, 2))
