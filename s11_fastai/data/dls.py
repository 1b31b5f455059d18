"""From an ImageSet or arrays to fastai's DataLoaders: items are indices of images in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import Categorize

from s11_fastai.data.items import ClassName, Picture
from s11_fastai.data.loader import Augmenter, ResidentDL
from s11_fastai.data.per_image import PerImage
from s11_fastai.data.transforms import (
    HOLE,
    BytesToFloat,
    Cutout,
    NormalizeBytes,
    PadCropFlip,
    PaddedImages,
    channel_stats,
)
from s11_fastai.environment import pick_device
from s11_fastai.errors import S11Error
from s11_fastai.sources import ImageSet, Split
from s11_fastai.sources.imageset import MAX_CLASSES, fingerprint

if TYPE_CHECKING:
    import albumentations as A


def get_dls(
    images: ImageSet,
    bs: int = 512,
    *,
    seed: int = 0,
    augment: A.Compose | PadCropFlip | Literal["default"] | None = "default",
    device: str | torch.device | None = None,
    num_workers: int = 0,
    path: str = ".",
) -> DataLoaders:
    """fastai DataLoaders: `train` shuffled and augmented, `valid` as it is; no image is dropped.

    A batch is (images, labels): float32 (bs, 3, H, W), normalised with the training images'
    statistics, in channels-last memory on `device`; and int64 (bs,). `augment` is "default", which
    is `PadCropFlip()` (pad 4, random crop, flip, Cutout 8x8, or of half the side where that is
    less; no flip of images that must not be mirrored, as digits), another PadCropFlip, None, or an
    `albumentations.Compose` from uint8 to uint8. Order and augmentation follow from `seed` and the
    epoch alone. Raises S11Error where an argument is of no use.

    A network that calls `x.view(len(x), -1)`, as fastai's Flatten does, wants `x.flatten(1)` in its
    place, as `view` knows no channels-last memory; one with batch normalisation on single values
    wants `dls.train.drop_last = True` where a last batch would have one image, and so does fastai's
    MixUp.

    Items are indices, which count through the evaluated images first and then through the training
    ones: `predict(i)` and `test_dl([i])` take the places that `interpret` and fastai's
    Interpretation give of evaluated images. Both also take any picture that `read_picture` reads.

    Images go two ways. For a batch, ResidentDL slices pixels and labels of all its indices at
    once and augments them as bytes; `after_batch` makes them floats on the device and cuts the
    holes. For a single item (`train_ds[i]`, `predict`, `test_dl` of files), fastai calls the
    dataset's transforms, `Picture` and `ClassName`, which augment nothing.
    """
    if not isinstance(images, ImageSet):
        raise S11Error(f"get_dls takes an ImageSet, not {images!r:.40}: give load_images(...)")
    for name, value, least in (("bs", bs, 1), ("seed", seed, 0), ("num_workers", num_workers, 0)):
        if not isinstance(value, Integral) or value < least:
            raise S11Error(f"`{name}` must be a whole number from {least}, not {value!r}")
    if isinstance(device, str):
        device = pick_device(device)
    augmenter = _augmenter(images, seed, augment)
    after_batch = [BytesToFloat(), NormalizeBytes(*channel_stats(images.train.images))]
    if isinstance(augmenter, PaddedImages) and augmenter.how.hole:
        after_batch.append(Cutout(augmenter.how.hole))
    classes = Categorize(list(images.classes), sort=False)
    block = DataBlock(
        blocks=(
            TransformBlock(type_tfms=[Picture(images)]),
            TransformBlock(type_tfms=[ClassName(images), classes]),
        ),
        get_items=_all_indices,
        splitter=_Splits(len(images.valid.labels)),
        batch_tfms=after_batch,
        dl_type=ResidentDL,
    )
    dls = block.dataloaders(
        images,
        bs=bs,
        path=path,
        drop_last=False,
        device=device,
        num_workers=num_workers,
        images=images,
        seed=seed,
        augment=augmenter,
    )
    for dl in dls.loaders:
        for pipeline in dl.dataset.tls:  # by its types fastai tells where a new item enters it:
            pipeline.types = [object, *pipeline.types[1:]]  # not indices alone at its beginning
    return dls


def _all_indices(images: ImageSet) -> list[int]:
    return list(range(len(images.train.labels) + len(images.valid.labels)))


class _Splits:
    """All indices in two: those of the training images, and those of the evaluated ones."""

    def __init__(self, n_valid: int) -> None:
        self.n_valid = n_valid

    def __call__(self, items: list[int]) -> tuple[list[int], list[int]]:
        return items[self.n_valid :], items[: self.n_valid]


def dls_from_arrays(
    x_train: np.ndarray,
    y_train: Sequence | np.ndarray,
    x_valid: np.ndarray,
    y_valid: Sequence | np.ndarray,
    vocab: Sequence[str] | None = None,
    bs: int = 64,
    **kwargs,
) -> DataLoaders:
    """fastai DataLoaders of anybody's images: `x_*` uint8 (N, H, W, 3), `y_*` N labels.

    Labels are names, or whole numbers from 0 that count through `vocab`. Without `vocab`, the
    classes are the names in order of the alphabet, or the numbers up to the largest. `bs` and
    `kwargs` (seed, augment, device, num_workers, path) are those of `get_dls`. Raises S11Error
    where arrays and labels do not fit together.
    """
    x_train, x_valid = _array("x_train", x_train), _array("x_valid", x_valid)
    y_train, y_valid = _labels("y_train", y_train), _labels("y_valid", y_valid)
    if vocab is None and y_train.size and y_valid.size and y_train.dtype.kind != y_valid.dtype.kind:
        raise S11Error("y_train and y_valid must both be names, or both be numbers: give vocab")
    if vocab is not None and not isinstance(vocab, Iterable):
        raise S11Error(f"vocab must be the names of the classes, not {vocab!r:.60}")
    names = _names([y_train, y_valid]) if vocab is None else tuple(map(str, vocab))
    if len(set(names)) < len(names):
        raise S11Error(f"vocab names a class twice: {', '.join(names):.60}")
    train = _split("train", x_train, y_train, names)
    valid = _split("valid", x_valid, y_valid, names)
    if train.images.shape[1:] != valid.images.shape[1:]:
        raise S11Error(
            f"x_train has images of shape {train.images.shape[1:]} and x_valid of "
            f"{valid.images.shape[1:]}: make them alike"
        )
    mark = fingerprint(names, train, valid)
    return get_dls(ImageSet("arrays", names, train, valid, mark, "held-out"), bs, **kwargs)


def _array(name: str, values: object) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise S11Error(f"{name} is no array: its parts are of different shapes") from error


def _labels(name: str, values: object) -> np.ndarray:
    """Labels as an array: int64, or text where they are names."""
    labels = _array(name, values)
    if labels.size and labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    if labels.size and not all(isinstance(v, str | bool | np.bool_) for v in labels.ravel()):
        raise S11Error(f"{name} must be names or whole numbers, not {labels.dtype}")
    return labels.astype(str)


def _names(labels: list[np.ndarray]) -> tuple[str, ...]:
    both = np.concatenate([y.ravel() for y in labels])
    if both.dtype.kind in "iu" and both.size:
        if both.min() > 0 or both.max() >= MAX_CLASSES:
            raise S11Error(
                f"labels go from {both.min()} to {both.max()}: count the classes from 0, at most "
                f"{MAX_CLASSES:,} of them, or give vocab, all of their names"
            )
        return tuple(map(str, range(int(both.max()) + 1)))
    return tuple(sorted({str(label) for label in both}))


def _split(which: str, x: np.ndarray, y: np.ndarray, names: tuple[str, ...]) -> Split:
    """Images and labels as an ImageSet has them. Raises S11Error where they are no such thing."""
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or not x.size:
        raise S11Error(f"x_{which} must be uint8 of shape (N, H, W, 3), not {x.dtype} of {x.shape}")
    if y.shape != x.shape[:1]:
        way = f": give np.ravel(y_{which})" if y.size == len(x) else ""
        raise S11Error(
            f"y_{which} must be {len(x)} labels, as x_{which}, not of shape {y.shape}{way}"
        )
    if y.dtype.kind not in "iu":
        number = {name: i for i, name in enumerate(names)}
        unknown = sorted({str(label) for label in y} - number.keys())
        if unknown:
            raise S11Error(f"y_{which} has {unknown[0]!r}, which is not in vocab: add it there")
        y = np.array([number[str(label)] for label in y])
    if y.min() < 0 or y.max() >= len(names):
        raise S11Error(
            f"y_{which} goes from {y.min()} to {y.max()}, but there are {len(names)} classes: "
            "count them from 0"
        )
    return Split(np.ascontiguousarray(x), y.astype(np.int64))


def _augmenter(images: ImageSet, seed: int, augment: object) -> Augmenter | None:
    """What augments batches of these images, tried on one."""
    if augment is None:
        return None
    if isinstance(augment, str) and augment == "default":
        augment = PadCropFlip(hole=min(HOLE, min(images.shape) // 2), flip=images.mirror)
    if isinstance(augment, PadCropFlip):
        return PaddedImages(images, seed, augment)
    if isinstance(augment, type) or not hasattr(augment, "set_random_seed"):
        raise S11Error(
            f'augment={augment!r:.60} cannot be used: give "default", None, '
            "PadCropFlip(...) or an albumentations.Compose; fastai's batch transforms go into "
            'dls.add_tfms([...], "after_batch")'
        )
    per_image = PerImage(images, seed, augment)
    per_image.check()
    return per_image
