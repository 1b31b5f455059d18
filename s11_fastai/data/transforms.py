"""Pad-crop, flip and Cutout, sampled for each image, and bytes to normalised floats.

Images are uint8 (N, H, W, C) of any size. Randomness is stateless: what is sampled for an image in
a training epoch follows from (seed, epoch, image), whatever batch it lands in and whichever
process asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Literal, NamedTuple

import numpy as np
import torch
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.vision.core import TensorImage
from fastcore.foundation import L
from fasttransform import DisplayedTransform, Pipeline
from numpy.lib.stride_tricks import as_strided

from s11_fastai.errors import S11Error
from s11_fastai.sources.imageset import SIDE, ImageSet, channel_counts, to_be_read

PAD, HOLE = 4, 8
MOST_KEPT = 2**30  # bytes of training images that are kept padded
ORDER_STREAM, AUGMENT_STREAM = 0, 1


class AugmentParams(NamedTuple):
    """What is sampled for n images, each of shape (n,): the crop's corner, 0 to 2 * pad; whether
    to flip; the hole's corner, 0 to side - hole."""

    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    hole_top: np.ndarray
    hole_left: np.ndarray

    def take(self, indices: np.ndarray) -> AugmentParams:
        return AugmentParams(*(column[indices] for column in self))

    @property
    def holes(self) -> torch.Tensor:
        """The holes' corners as `cutout_` takes them, (n, 2)."""
        return torch.from_numpy(np.stack([self.hole_top, self.hole_left], axis=1))


def sample_params(
    n: int,
    seed: int,
    epoch: int,
    key: tuple[int, ...] = (),
    *,
    shape: tuple[int, int] = (SIDE, SIDE),
    pad: int = PAD,
    hole: int = HOLE,
    flip: bool = True,
) -> AugmentParams:
    """Sample for n images of (height, width); every value of a range is equally likely.

    Without `flip` no image is mirrored; the other values are the same.

    Without `key`, these are the training images 0 to n-1 in one epoch. A `key` names any other
    use, and gives other values.
    """
    rng = stream(seed, epoch, AUGMENT_STREAM, key)
    corner, (height, width) = 2 * pad + 1, shape
    return AugmentParams(
        top=rng.integers(corner, size=n),
        left=rng.integers(corner, size=n),
        flip=rng.integers(2, size=n).astype(bool) & flip,
        hole_top=rng.integers(height - hole + 1, size=n),
        hole_left=rng.integers(width - hole + 1, size=n),
    )


def epoch_order(n: int, seed: int, epoch: int, key: tuple[int, ...] = ()) -> np.ndarray:
    """The order in which images 0 to n-1 are shown in one epoch; `key` as in `sample_params`."""
    return stream(seed, epoch, ORDER_STREAM, key).permutation(n)


def stream(seed: int, epoch: int, purpose: int, key: tuple[int, ...] = ()) -> np.random.Generator:
    """The generator of one purpose in an epoch; another one for each `key`."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, purpose], spawn_key=key))


@dataclass(frozen=True)
class PadCropFlip:
    """The default augmentation, sampled for each image: what `get_dls` takes as `augment`.

    `pad` zeros on each side, a random crop back to the image's size, a flip from left to right
    with probability 1/2 unless `flip` is False, then Cutout of a square of `hole` pixels, or none
    where `hole` is 0. A square as large as the image would leave nothing of it.
    """

    pad: int = PAD
    hole: int = HOLE
    flip: bool = True

    def check(self, shape: tuple[int, int]) -> None:
        """Raise S11Error where images of (height, width) cannot be augmented so."""
        if not isinstance(self.flip, bool | np.bool_):
            raise S11Error(f"{self}: flip must be True, for half of the images, or False")
        whole = isinstance(self.pad, Integral) and isinstance(self.hole, Integral)
        if not whole or self.pad < 0 or not 0 <= self.hole < min(shape):
            raise S11Error(
                f"{self} does not fit images of {shape[0]}x{shape[1]}: pad must be 0 or more, "
                "hole 0 or more and below the image's shorter side, in whole pixels"
            )


class PaddedImages:
    """`PadCropFlip` on the images of an ImageSet, for batches that are sliced whole.

    The training images are kept padded and in both orientations from the first batch on, 7,776
    bytes for one of 32x32, where they take no more than `MOST_KEPT`; else each batch is padded by
    itself, to the same bytes.
    """

    def __init__(self, images: ImageSet, seed: int, how: PadCropFlip) -> None:
        self.images, self.seed, self.how = images, seed, how
        self.shape = images.shape
        how.check(self.shape)
        self._newest: tuple[int, AugmentParams] | None = None  # an epoch and its parameters

    @cached_property
    def padded(self) -> np.ndarray | None:
        images, pad = self.images.train.images, self.how.pad
        n, height, width, channels = images.shape
        bytes_kept = 2 * n * (pad + height) * (pad + width) * channels
        return _padded_both_ways(images, pad) if bytes_kept <= MOST_KEPT else None

    def prepare(self) -> None:
        """Pad the images now, so that worker processes share them where they are forked."""
        _ = self.padded

    def __getstate__(self) -> dict:
        """For a pickle, as other worker processes get it: they pad the images themselves."""
        return {name: value for name, value in vars(self).items() if name != "padded"}

    @property
    def in_words(self) -> str:
        """What it does, for people."""
        steps = {"pad-crop": self.how.pad, "flip": self.how.flip, "Cutout": self.how.hole}
        *others, last = [name for name, used in steps.items() if used] or ["nothing"]
        return f"{', '.join(others)} and {last}" if others else last

    def __call__(self, indices: np.ndarray, epoch: int, key: tuple[int, ...] = ()) -> TensorImage:
        """The batch of these images, uint8, and with it the holes that Cutout will cut.

        Without `key`, each training image gets what the epoch has for it; with one, each place in
        the batch is sampled by itself, so that an image may stand in many and be any image.
        """
        places = self.images.places_in_train(indices)
        if key:
            params = self._sample(len(indices), epoch, key)
        else:
            params = self._of_epoch(len(self.images.train.labels), epoch).take(places)
        if (places >= 0).all() and self.padded is not None:
            crops = _crops(self.padded, places, params, self.shape, self.how.pad)
        else:
            crops = pad_crop_flip(self.images.pixels_of(indices), params, self.how.pad)
        return self._with_holes(crops, params)

    def of_pixels(self, pixels: np.ndarray, epoch: int, key: tuple[int, ...]) -> TensorImage:
        """The batch of any pictures of the same size, uint8 (n, H, W, 3)."""
        params = self._sample(len(pixels), epoch, key)
        return self._with_holes(pad_crop_flip(pixels, params, self.how.pad), params)

    def without_images(self) -> PaddedImages:
        """The same for new pictures alone, as an exported Learner has it."""
        return PaddedImages(self.images.without_images(), self.seed, self.how)

    def _with_holes(self, crops: np.ndarray, params: AugmentParams) -> TensorImage:
        batch = to_batch(crops)
        if self.how.hole:
            batch.holes = Holes(params.holes, self.how.hole, self.shape)
        return batch

    def _sample(self, n: int, epoch: int, key: tuple[int, ...] = ()) -> AugmentParams:
        return sample_params(n, self.seed, epoch, key, shape=self.shape, **vars(self.how))

    def _of_epoch(self, n: int, epoch: int) -> AugmentParams:
        if self._newest is None or self._newest[0] != epoch:
            self._newest = epoch, self._sample(n, epoch)
        return self._newest[1]


def pad_crop_flip(images: np.ndarray, params: AugmentParams, pad: int = PAD) -> np.ndarray:
    """Pad with zeros, crop back to the same size at the sampled corner, mirror where sampled.

    uint8 (n, H, W, C) in, a new array of the same kind out. Source: He et al.,
    arXiv:1512.03385, section 4.2.
    """
    padded = _padded_both_ways(images, pad)
    return _crops(padded, np.arange(len(images)), params, images.shape[1:3], pad)


def _padded_both_ways(images: np.ndarray, pad: int) -> np.ndarray:
    """All images padded, then all of them mirrored, as rows of pixels: uint8 (rows, pad + W, C).

    Neighbours share their zeros: what is left of a row is right of the one before, and what is
    above an image is below the one before.
    """
    n, height, width, channels = images.shape
    rows = np.zeros((2 * n * (pad + height) + pad + 1, pad + width, channels), np.uint8)
    both = rows[: -pad - 1].reshape(2, n, pad + height, pad + width, channels)
    plain, mirrored = both[:, :, pad:, pad:]
    plain[:] = images
    mirrored[:] = to_be_read(images).flip(2).numpy()  # in half of NumPy's time
    return rows


def _crops(
    rows: np.ndarray, indices: np.ndarray, params: AugmentParams, shape: tuple[int, int], pad: int
) -> np.ndarray:
    """One crop of each of some images, gathered in one go: uint8 (n, H, W, C)."""
    height, width = shape
    pitch, channels = rows.shape[1:]
    n = len(rows) // (2 * (pad + height))
    top = (params.flip * n + indices) * (pad + height) + params.top
    left = np.where(params.flip, 2 * pad - params.left, params.left)
    # A window for each pixel of all images; its rows are runs of bytes, each copied as one.
    row, pixel, byte = rows.strides
    windows = as_strided(
        rows,
        shape=((len(rows) - height) * pitch, height, channels * width),
        strides=(pixel, row, byte),
        writeable=False,
    )
    return windows[top * pitch + left].reshape(-1, height, width, channels)


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


class Holes(NamedTuple):
    """The squares of `size` pixels, by their corners (n, 2), in a batch of n images of `shape`."""

    corners: torch.Tensor
    size: int
    shape: tuple[int, int]

    def suit(self, x: torch.Tensor, size: int) -> bool:
        """Whether they are squares of this size for all images of this batch."""
        return (len(self.corners), self.shape, self.size) == (len(x), tuple(x.shape[-2:]), size)


class Cutout(DisplayedTransform):
    """fastai's batch transform of `cutout_`, on the device of the batch, for training batches only.

    It works in any DataBlock, among its item_tfms too: `size` pixels a side, another square in each
    image, with PyTorch's generator. The default `fill`, 0, is the mean once the batch is
    normalised. A batch of `get_dls` brings its own squares, which are stateless, in `holes`. The
    batch is changed in place.
    """

    order, split_idx = 100, 0

    def __init__(self, size: int = HOLE, fill: float = 0.0) -> None:
        super().__init__()
        self.size, self.fill = size, fill

    def encodes(self, x: TensorImage) -> TensorImage:
        is_item = x.ndim == 3  # where it is one of a DataBlock's item_tfms
        return self._cut(x[None])[0] if is_item else self._cut(x)

    def _cut(self, x: TensorImage) -> torch.Tensor:
        # fastai copies the attributes of a batch from one transform's result to the next.
        holes = vars(x).pop("holes", None)
        if holes is not None and holes.suit(x, self.size):
            corners = holes.corners
        else:
            corners = self._sample(x)
        return cutout_(x.as_subclass(torch.Tensor), corners, self.size, self.fill)

    def _sample(self, x: torch.Tensor) -> torch.Tensor:
        n, (height, width) = len(x), x.shape[-2:]
        if self.size >= min(height, width):
            raise S11Error(
                f"Cutout({self.size}) does not fit into images of {height}x{width}: "
                "choose a smaller size"
            )
        ranges = height - self.size + 1, width - self.size + 1
        return torch.stack([torch.randint(r, (n,), device=x.device) for r in ranges], dim=1)


def to_batch(images: np.ndarray) -> TensorImage:
    """uint8 (n, H, W, C) to (n, C, H, W) in channels-last memory, without a copy."""
    return TensorImage(torch.from_numpy(images).permute(0, 3, 1, 2))


def channel_stats(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 (N, H, W, C), on the scale of [0, 1].

    Exact: from counts of the 256 values.
    """
    values, counts = np.arange(256) / 255, channel_counts(images)
    mean = [float(np.average(values, weights=n)) for n in counts]
    variance = [np.average((values - m) ** 2, weights=n) for m, n in zip(mean, counts, strict=True)]
    return mean, [float(np.sqrt(v)) or 1.0 for v in variance]


Left = Literal["nothing", "bytes", "all"]


class BytesToFloat(IntToFloatTensor):
    """fastai's IntToFloatTensor for bytes: uint8 to float32 in [0, 1], for what comes after it.

    As fastai's, it takes floats for bytes that a transform before it has made floats. It leaves
    "bytes", or "all", as they are to what comes after it; `defer` tells.
    """

    def __init__(self, leaves: Left = "nothing") -> None:
        super().__init__()
        self.leaves = leaves

    @property
    def int_to_float_tensor(self) -> BytesToFloat:
        """What `dls.after_batch.int_to_float_tensor` finds, as with fastai's own."""
        return self

    def encodes(self, x: TensorImage) -> TensorImage:
        left = self.leaves == "all" or (self.leaves == "bytes" and not x.is_floating_point())
        return x if left else x.float().div_(self.div)

    def decodes(self, x: TensorImage) -> TensorImage:
        return (x.clamp(0, 1) * self.div).round().byte() if x.is_floating_point() else x


def defer(pipeline: Pipeline) -> None:
    """Let NormalizeBytes convert the bytes where no transform stands between it and BytesToFloat.

    fastai's own IntToFloatTensor converts all, where somebody added it, and then it is done once.
    """
    transforms = list(pipeline.fs)
    ours = [isinstance(f, BytesToFloat) for f in transforms]
    other = any(isinstance(f, IntToFloatTensor) for f in transforms if type(f) is not BytesToFloat)
    for i in np.flatnonzero(ours):
        next_one = transforms[i + 1] if i + 1 < len(transforms) else None
        # A new one, as the loaders share those in their pipelines.
        by_next: Left = "bytes" if isinstance(next_one, NormalizeBytes) else "nothing"
        transforms[i] = BytesToFloat("all" if other else by_next)
    pipeline.fs = L(transforms)


class NormalizeBytes(Normalize):
    """fastai's Normalize, which also takes bytes: uint8 (n, C, H, W) to float32, normalised.

    `mean` and `std` have a value for each channel, on the scale of [0, 1]. For bytes, one
    conversion and one multiply-add in place take a fifth of the time of IntToFloatTensor and
    Normalize one after the other. Floats are taken to be in [0, 1].
    """

    parameters = L("mean", "std", "scale", "shift")

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        means, stds = (
            torch.tensor(values, dtype=torch.float64)[None, :, None, None] for values in (mean, std)
        )
        super().__init__(means.float(), stds.float())
        self._known = tuple(mean), tuple(std)
        self._seen = self.mean, self.std
        self.scale, self.shift = (1 / (255 * stds)).float(), (-means / stds).float()
        self._enlarged: tuple[torch.Tensor, ...] | None = None

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel."""
        self._refresh()
        return self._known

    def _refresh(self) -> None:
        """Follow `mean` and `std` where somebody has set others."""
        now = self.mean, self.std
        if all(a is b for a, b in zip(now, self._seen, strict=True)):
            return
        # On another device they are other tensors, of the same values.
        if not all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(now, self._seen, strict=True)):
            mean, std = (tuple(values.flatten().tolist()) for values in now)
            self._known = mean, std
            self.scale, self.shift = 1 / (255 * self.std), -self.mean / self.std
            self._enlarged = None
        self._seen = now

    def __getstate__(self) -> dict:
        """For a pickle: all but the enlarged copies, which are made again."""
        return vars(self) | {"_enlarged": None}

    @property
    def normalize(self) -> NormalizeBytes:
        """What `dls.after_batch.normalize` finds, as with fastai's own."""
        return self

    def encodes(self, x: TensorImage) -> TensorImage:
        if x.is_floating_point():
            return super().encodes(x)
        if x.ndim != 4:  # a single picture, of a loader without batches
            return super().encodes(x.float() / 255)
        self._refresh()
        scale, shift = self._like(x)
        out = x.as_subclass(torch.Tensor).float()
        return torch.addcmul(shift, out, scale, out=out)

    def _like(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Scale and shift as large as a picture and in its order of memory.

        A broadcast over runs of three values, the channels of a pixel, cannot be vectorised.
        """
        kept = self._enlarged
        if kept is None or (kept[0].shape[-2:], kept[0].device) != (x.shape[-2:], x.device):
            kept = self._enlarged = tuple(
                values.expand(-1, -1, *x.shape[-2:]).contiguous(memory_format=torch.channels_last)
                for values in (self.scale, self.shift)
            )
        return kept
