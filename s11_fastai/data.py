"""From an ImageSet to fastai's DataLoaders: items are indices, batches are sliced whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders, Datasets, TfmdDL
from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.torch_core import TensorCategory
from fastai.vision.core import TensorImage
from fasttransform import Transform
from PIL import Image, ImageOps

from s11_fastai.augment import Cutout, PadCropFlip, PerImage, epoch_order, to_batch
from s11_fastai.errors import S11Error
from s11_fastai.sources import ImageSet, Part
from s11_fastai.sources.imageset import SIDE

if TYPE_CHECKING:
    import albumentations as A

Augment = Callable[[np.ndarray, np.ndarray, int], TensorImage]


def get_dls(
    images: ImageSet,
    bs: int = 512,
    *,
    seed: int = 0,
    augment: A.Compose | Literal["default"] | None = "default",
    device: str | torch.device | None = None,
    num_workers: int = 0,
    path: str = ".",
) -> DataLoaders:
    """fastai DataLoaders: `train` shuffled and augmented, `valid` as it is; no image is dropped.

    A batch is (images, labels): float32 (bs, 3, 32, 32), normalised with the training images'
    statistics, in channels-last memory on `device`; and int64 (bs,). `augment` is "default" (pad
    4, random crop, flip, Cutout 8x8), None, or an `albumentations.Compose` from uint8 to uint8.
    Order and augmentation follow from `seed` and the epoch alone.
    """
    mean, std = channel_stats(images.train.images)
    if augment == "default":
        augmenter, cut = PadCropFlip(len(images.train.labels), seed), [Cutout(fill=tuple(mean))]
    else:
        augmenter, cut = augment and PerImage(augment, seed), []
    block = DataBlock(
        blocks=(
            TransformBlock(type_tfms=[LookUp(images)], batch_tfms=[IntToFloatTensor]),
            CategoryBlock(vocab=list(images.classes), sort=False),
        ),
        get_items=_all_indices,
        splitter=_IndicesOfParts(images),
        get_y=ClassName(images),
        batch_tfms=[*cut, Normalize.from_stats(mean, std)],
        dl_type=ResidentDL,
    )
    return block.dataloaders(
        images,
        path=path,
        bs=bs,
        drop_last=False,
        num_workers=num_workers,
        device=device,
        images=images,
        seed=seed,
        augment=augmenter,
    )


def channel_stats(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 (N, H, W, C), on the scale of [0, 1].

    Exact: from counts of the 256 values.
    """
    values = np.arange(256) / 255
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), 5_000):  # bincount takes eight bytes for each of ours
        for channel, pixels in zip(counts, images[start : start + 5_000].T, strict=True):
            channel += np.bincount(pixels.ravel(), minlength=256)
    mean = [float(np.average(values, weights=n)) for n in counts]
    variance = [np.average((values - m) ** 2, weights=n) for m, n in zip(mean, counts, strict=True)]
    return mean, [float(np.sqrt(v)) or 1.0 for v in variance]


class ResidentDL(TfmdDL):
    """A DataLoader whose training batches are sliced whole from images that lie in memory.

    `set_epoch` chooses what the next pass draws; without it each full pass moves on by one.
    """

    def __init__(
        self,
        dataset: Datasets,
        *args,
        images: ImageSet,
        seed: int = 0,
        augment: Augment | None = None,
        **kwargs,
    ) -> None:
        self.images, self.seed, self.augment = images, seed, augment
        self.epoch, self.first_batch = 0, 0
        super().__init__(dataset, *args, **kwargs)

    def new(self, dataset: Datasets | None = None, cls: type | None = None, **kwargs) -> TfmdDL:
        if cls is None or issubclass(cls, ResidentDL):
            own = {"images": self.images, "seed": self.seed, "augment": self.augment}
            kwargs = own | kwargs
        return super().new(dataset, cls, **kwargs)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Make the next pass that of `epoch`, beginning with `first_batch`, both counted from 0."""
        self.epoch, self.first_batch = epoch, first_batch

    def after_iter(self) -> None:
        super().after_iter()
        self.epoch, self.first_batch = self.epoch + 1, 0

    def get_idxs(self) -> list[int]:
        return super().get_idxs()[self.first_batch * (self.bs or 1) :]

    def shuffle_fn(self, idxs: list[int]) -> list[int]:
        return [idxs[i] for i in epoch_order(len(idxs), self.seed, self.epoch).tolist()]

    def create_batches(self, samps: Iterable[int]) -> Iterator[tuple]:
        items = self.dataset.items
        if not isinstance(items[0], Integral):  # not ours: left to fastai, one by one
            yield from super().create_batches(samps)
            return
        for chunk in self.chunkify(samps):
            yield self._slice(np.asarray([items[i] for i in chunk]))

    def _slice(self, indices: np.ndarray) -> tuple:
        pixels = self.images.pixels_of(indices)
        if self.augment and self.dataset.split_idx == 0:
            batch = (self.augment(pixels, indices, self.epoch),)
        else:
            batch = (to_batch(pixels),)
        if len(self.dataset.tls) > 1:
            batch += (TensorCategory(torch.from_numpy(self.images.labels_of(indices))),)
        return batch


class LookUp(Transform):
    """An index to its image, uint8 (3, 32, 32)."""

    def __init__(self, images: ImageSet) -> None:
        super().__init__()
        self.images = images

    def encodes(self, i: int) -> TensorImage:
        return to_batch(self.images.pixels_of(np.asarray([i])))[0]


def as_image(item: str | Path | Image.Image | np.ndarray) -> TensorImage:
    """A picture as the network takes it, uint8 (3, 32, 32): cut to a square and resized.

    `item` is the path of a PNG, JPEG, WebP, GIF or BMP, a PIL image, or an array, uint8 (H, W, 3)
    or (H, W). Raises S11Error for anything else.
    """
    try:
        if isinstance(item, np.ndarray):
            if item.dtype != np.uint8:
                raise TypeError(f"an array of {item.dtype}, not of uint8")
            item = Image.fromarray(item)
        elif isinstance(item, str | Path):
            item = Image.open(item, formats=("PNG", "JPEG", "WEBP", "GIF", "BMP"))
        image = item.convert("RGB")
        if image.size != (SIDE, SIDE):
            image = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC)
    except (OSError, ValueError, TypeError, AttributeError, SyntaxError) as error:
        raise S11Error(
            f"{item if isinstance(item, str | Path) else type(item).__name__} is no picture that "
            f"can be read ({error}): give a path, a PIL image or a uint8 array"
        ) from error
    return to_batch(np.array(image)[None])[0]


class ClassName:
    """An index to the name of its class."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __call__(self, i: int) -> str:
        return self.images.classes[self.images.labels_of(np.asarray([i]))[0]]


class _IndicesOfParts:
    """Splits all indices into the training part's and the evaluated part's."""

    def __init__(self, images: ImageSet) -> None:
        self.n_train = len(images.train.labels)

    def __call__(self, items: list[int]) -> tuple[range, range]:
        return range(self.n_train), range(self.n_train, len(items))


def _all_indices(images: ImageSet) -> list[int]:
    parts: tuple[Part, Part] = (images.train, images.valid)
    return list(range(sum(len(part.labels) for part in parts)))
