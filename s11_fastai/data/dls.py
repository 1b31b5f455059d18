"""From an ImageSet to fastai's DataLoaders: items are indices, batches are sliced whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.vision.core import TensorImage
from fasttransform import Transform
from PIL import Image, ImageOps

from s11_fastai.data.loader import ResidentDL
from s11_fastai.data.per_image import PerImage
from s11_fastai.data.transforms import Cutout, NormalizeBytes, PadCropFlip, channel_stats, to_batch
from s11_fastai.errors import S11Error
from s11_fastai.sources import ImageSet, Part
from s11_fastai.sources.imageset import SIDE

if TYPE_CHECKING:
    import albumentations as A


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
    augmenter, cut = None, []
    if augment == "default":
        augmenter, cut = PadCropFlip(images.train.images, seed), [Cutout()]
    elif augment is not None:
        augmenter = PerImage(images.train.images, seed, augment)
    block = DataBlock(
        blocks=(
            TransformBlock(type_tfms=[LookUp(images)]),
            CategoryBlock(vocab=list(images.classes), sort=False),
        ),
        get_items=_all_indices,
        splitter=_IndicesOfParts(images),
        get_y=ClassName(images),
        batch_tfms=[NormalizeBytes(*channel_stats(images.train.images)), *cut],
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
