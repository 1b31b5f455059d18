"""Pad-crop, flip and Cutout, drawn for each image; and the same as an Albumentations pipeline.

Randomness is stateless: what is drawn for an image follows from (seed, epoch, image), whatever
batch it lands in and whichever process asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from fastai.data.transforms import Normalize
from fastai.vision.core import TensorImage
from fastcore.foundation import L
from fasttransform import DisplayedTransform
from numpy.lib.stride_tricks import as_strided

from s11_fastai.sources.imageset import SIDE

if TYPE_CHECKING:
    pass


PAD, HOLE = 4, 8
_PITCH = PAD + SIDE
ORDER_STREAM, DRAW_STREAM = 0, 1


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

    @property
    def holes(self) -> torch.Tensor:
        """The holes' corners as `cutout_` takes them, (n, 2)."""
        return torch.from_numpy(np.stack([self.hole_top, self.hole_left], axis=1))


@lru_cache(maxsize=2)
def draw(n: int, seed: int, epoch: int) -> Draws:
    """Draw for images 0 to n-1 of one epoch; every value of a range is equally likely."""
    rng = np.random.default_rng([seed, epoch, DRAW_STREAM])
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
    return np.random.default_rng([seed, epoch, ORDER_STREAM]).permutation(n)


def pad_crop_flip(images: np.ndarray, draws: Draws) -> np.ndarray:
    """Pad with 4 zeros a side, crop back to 32x32 at the drawn corner, mirror where drawn.

    uint8 (n, 32, 32, 3) in, a new array of the same kind out. Source: He et al.,
    arXiv:1512.03385, section 4.2.
    """
    return _crops(_padded_both_ways(images), np.arange(len(images)), draws)


def _padded_both_ways(images: np.ndarray) -> np.ndarray:
    """All images padded, then all of them mirrored, as rows of pixels: uint8 (rows, 36, 3).

    Neighbours share their zeros: what is left of a row is right of the one before, and what is
    above an image is below the one before.
    """
    n = len(images)
    rows = np.zeros((2 * n * _PITCH + PAD + 1, _PITCH, 3), np.uint8)
    plain, mirrored = rows[: -PAD - 1].reshape(2, n, _PITCH, _PITCH, 3)[:, :, PAD:, PAD:]
    plain[:] = images
    mirrored[:] = torch.from_numpy(images).flip(2).numpy()  # in half of NumPy's time
    return rows


def _crops(rows: np.ndarray, indices: np.ndarray, draws: Draws) -> np.ndarray:
    """One crop of each of some images, gathered in one go: uint8 (n, 32, 32, 3)."""
    n = len(rows) // (2 * _PITCH)
    top = (draws.flip * n + indices) * _PITCH + draws.top
    left = np.where(draws.flip, 2 * PAD - draws.left, draws.left)
    # A window for each pixel of all images; its rows are runs of bytes, each copied as one.
    row, pixel, byte = rows.strides
    windows = as_strided(
        rows,
        shape=((len(rows) - SIDE) * _PITCH, SIDE, 3 * SIDE),
        strides=(pixel, row, byte),
        writeable=False,
    )
    return windows[top * _PITCH + left].reshape(-1, SIDE, SIDE, 3)


def cutout_(
    images: torch.Tensor, holes: torch.Tensor, size: int, fill: float | torch.Tensor = 0
) -> torch.Tensor:
    """Fill a square of `size` pixels in each image, in place; returns the images.

    images: (n, C, H, W), in any order of memory; holes: the squares' top-left corners, integers
    (n, 2); fill: a number, or a value for each channel, (C, 1, 1). Source: DeVries and Taylor,
    arXiv:1708.04552, with the square kept wholly inside the picture.
    """
    if not isinstance(fill, torch.Tensor):
        fill = images.new_full((), fill)  # made there: a number would be copied, and waited for
    top, left = holes.to(images.device).unbind(1)
    squares = images.unfold(2, size, 1).unfold(3, size, 1)
    squares[torch.arange(len(images), device=images.device), :, top, left] = fill
    return images


class Cutout(DisplayedTransform):
    """fastai's batch transform of `cutout_`, on the device of the batch, for training batches only.

    It fills the squares at `holes`, which batches of `get_dls` carry, once they are normalised:
    the default `fill`, 0, is the mean of the training images. The batch is changed in place.
    """

    order, split_idx = 100, 0

    def __init__(self, size: int = HOLE, fill: float = 0.0) -> None:
        self.size, self.fill = size, fill

    def encodes(self, x: TensorImage) -> TensorImage:
        return cutout_(x.as_subclass(torch.Tensor), x.holes, self.size, self.fill)


class PadCropFlip:
    """The default augmentation while batches are sliced; it also draws where Cutout will cut.

    `images` are all training images, uint8 (N, 32, 32, 3). They are kept padded and in both
    orientations, 7,776 bytes an image, from the first batch on.
    """

    def __init__(self, images: np.ndarray, seed: int) -> None:
        self.images, self.seed = images, seed

    @cached_property
    def padded(self) -> np.ndarray:
        return _padded_both_ways(self.images)

    def prepare(self) -> None:
        """Pad the images now, so that worker processes share them."""
        _ = self.padded

    def __call__(self, indices: np.ndarray, epoch: int) -> TensorImage:
        draws = draw(len(self.images), self.seed, epoch).take(indices)
        batch = to_batch(_crops(self.padded, indices, draws))
        batch.holes = draws.holes
        return batch


def to_batch(images: np.ndarray) -> TensorImage:
    """uint8 (n, H, W, C) to (n, C, H, W) in channels-last memory, without a copy."""
    return TensorImage(torch.from_numpy(images).permute(0, 3, 1, 2))


def channel_stats(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 (N, H, W, C), on the scale of [0, 1].

    Exact: from counts of the 256 values.
    """
    values = np.arange(256) / 255
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), 500):  # a part that the processor's cache holds
        pixels = torch.from_numpy(images[start : start + 500]).flatten(0, 2)
        for channel, own in zip(counts, pixels.T, strict=True):
            channel += torch.bincount(own.contiguous(), minlength=256).numpy()
    mean = [float(np.average(values, weights=n)) for n in counts]
    variance = [np.average((values - m) ** 2, weights=n) for m, n in zip(mean, counts, strict=True)]
    return mean, [float(np.sqrt(v)) or 1.0 for v in variance]


class NormalizeBytes(Normalize):
    """fastai's IntToFloatTensor and Normalize in one: uint8 (n, C, 32, 32) to float32, normalised.

    `mean` and `std` have a value for each channel, on the scale of [0, 1]. One conversion and one
    multiply-add in place take a fifth of the time of the two one after the other.
    """

    parameters = L("mean", "std", "scale", "shift")

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        mean, std = (
            torch.tensor(values, dtype=torch.float64)[None, :, None, None] for values in (mean, std)
        )
        super().__init__(mean.float(), std.float())
        # As large as a picture and in its order of memory: a broadcast over runs of three values,
        # the channels of a pixel, cannot be vectorised.
        self.scale, self.shift = (
            values.float().expand(-1, -1, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
            for values in (1 / (255 * std), -mean / std)
        )

    def encodes(self, x: TensorImage) -> TensorImage:
        out = x.as_subclass(torch.Tensor).float()
        return torch.addcmul(self.shift, out, self.scale, out=out)

    def decodes(self, x: TensorImage) -> TensorImage:
        return (super().decodes(x).clamp(0, 1) * 255).round().byte()
